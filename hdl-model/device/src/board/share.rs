//! Each VF's share of the host's attention: packets at the host at a time. A VF that has used up its share is not read
//! until some come back, so that nothing is lost.

use std::collections::HashMap;

use culvert_abi::pci::TOTAL_VFS;

/// Who has how many packets at the host.
pub(super) struct Shares {
    outstanding: [u32; TOTAL_VFS as usize],
    /// The host names vports; which VF each is, as exceptions have shown it.
    vf_of: HashMap<u16, u8>,
}

impl Shares {
    pub(super) fn new() -> Self {
        Shares { outstanding: [0; TOTAL_VFS as usize], vf_of: HashMap::new() }
    }

    /// Nothing is at the host any more.
    pub(super) fn clear(&mut self) {
        self.outstanding.fill(0);
    }

    /// A packet of a VF goes to the host.
    pub(super) fn take(&mut self, vf: u8, vport: u16) {
        if let Some(n) = self.outstanding.get_mut(usize::from(vf)) {
            *n += 1;
            self.vf_of.insert(vport, vf);
        }
    }

    /// Packets of a vport have come back.
    pub(super) fn give_back(&mut self, vport: u16, count: u32) {
        if let Some(n) = self.vf_of.get(&vport).and_then(|vf| self.outstanding.get_mut(usize::from(*vf))) {
            *n = n.saturating_sub(count);
        }
    }

    /// How many packets of a VF are at the host.
    pub(super) fn used(&self, vf: usize) -> u32 {
        self.outstanding.get(vf).copied().unwrap_or(0)
    }
}
