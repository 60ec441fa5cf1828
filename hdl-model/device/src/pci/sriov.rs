//! The SR-IOV extended capability of a physical function (PCIe 6.0 section 9.3.3).

use super::config::{Bar, ConfigBuilder, ConfigSpace};

/// Offsets in the capability.
const CONTROL: usize = 0x08;
const INITIAL_VFS: usize = 0x0c;
const TOTAL_VFS: usize = 0x0e;
const NUM_VFS: usize = 0x10;
const FIRST_VF_OFFSET: usize = 0x14;
const VF_STRIDE: usize = 0x16;
const VF_DEVICE: usize = 0x1a;
const SUPPORTED_PAGES: usize = 0x1c;
const SYSTEM_PAGE: usize = 0x20;
const VF_BARS: usize = 0x24;
const LEN: usize = 0x40;

/// Bits of the control register.
const VF_ENABLE: u16 = 1 << 0;
const VF_MSE: u16 = 1 << 3;
const ARI_HIERARCHY: u16 = 1 << 4;

/// What the capability announces.
#[derive(Clone, Copy, Debug)]
pub struct SriovLayout<'a> {
    /// VFs that the function can have.
    pub total: u16,
    /// Routing id of the first VF, counted from the PF's.
    pub first_offset: u16,
    /// Distance between VFs' routing ids.
    pub stride: u16,
    /// Device id of every VF.
    pub vf_device: u16,
    /// BARs of every VF; their sizes are for one VF.
    pub vf_bars: &'a [Bar],
}

/// How many VFs there are, and whether their memory answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfState {
    /// Number of VFs that exist: NumVFs while VF Enable is set, else 0.
    pub count: u16,
    /// VF MSE.
    pub memory: bool,
}

/// Where a function's SR-IOV capability is.
#[derive(Clone, Copy, Debug)]
pub struct Sriov {
    at: usize,
    total: u16,
}

impl Sriov {
    /// Adds ARI, which 64 VFs on one bus need, and SR-IOV.
    pub fn add(builder: &mut ConfigBuilder, layout: SriovLayout<'_>) -> Self {
        builder.extended(0x000e, 1, &[0; 4], &[]);
        let mut body = [0; LEN - 4];
        let mut set = |at: usize, value: u16| body[at - 4..at - 2].copy_from_slice(&value.to_le_bytes());
        set(INITIAL_VFS, layout.total);
        set(TOTAL_VFS, layout.total);
        set(FIRST_VF_OFFSET, layout.first_offset);
        set(VF_STRIDE, layout.stride);
        set(VF_DEVICE, layout.vf_device);
        set(SUPPORTED_PAGES, 1); // 4 KiB
        set(SYSTEM_PAGE, 1);
        let mut mask = [0; LEN - 4];
        mask[CONTROL - 4..CONTROL - 2].copy_from_slice(&(VF_ENABLE | VF_MSE | ARI_HIERARCHY).to_le_bytes());
        let at = builder.extended(0x0010, 1, &body, &mask);
        for bar in layout.vf_bars {
            builder.place_bar(at + VF_BARS, *bar);
        }
        Self { at, total: layout.total }
    }

    /// Called before a write to configuration space: NumVFs is writable while VF Enable is clear (9.3.3.7).
    pub fn prepare(&self, space: &mut ConfigSpace) {
        let enabled = space.u16(self.at + CONTROL) & VF_ENABLE != 0;
        space.allow(self.at + NUM_VFS, &if enabled { [0, 0] } else { [0xff, 0xff] });
    }

    /// Called after a write: a NumVFs above TotalVFs, which the specification leaves undefined, is put back to `old`.
    pub fn settle(&self, space: &mut ConfigSpace, old: u16) -> VfState {
        if space.u16(self.at + NUM_VFS) > self.total {
            space.set_u16(self.at + NUM_VFS, old);
        }
        let control = space.u16(self.at + CONTROL);
        let count = if control & VF_ENABLE != 0 { space.u16(self.at + NUM_VFS) } else { 0 };
        VfState { count, memory: control & VF_MSE != 0 }
    }

    /// NumVFs as it reads now.
    pub fn num_vfs(&self, space: &ConfigSpace) -> u16 {
        space.u16(self.at + NUM_VFS)
    }

    /// The capability's offset.
    pub fn offset(&self) -> usize {
        self.at
    }
}
