//! A running function's PCI side: configuration space with its effects, bus mastering, MSI-X.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::config::{Bar, COMMAND, ConfigBuilder, ConfigSpace, Identity};
use super::intx::Intx;
use super::msix::Msix;
use super::sriov::{Sriov, SriovLayout, VfState};

/// Bus Master Enable and Interrupt Disable in the command register.
const BUS_MASTER: u16 = 1 << 2;
const INTX_DISABLE: u16 = 1 << 10;
/// Low byte of the status register, and Interrupt Status in it.
const STATUS: usize = 0x06;
const INTERRUPT_STATUS: u8 = 1 << 3;
/// Offset of device control in the PCI Express capability, and the bit that starts a reset.
const DEVICE_CONTROL: usize = 8;
const INITIATE_FLR: u16 = 1 << 15;
/// Enable and function mask in the MSI-X capability's control word.
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_MASK: u16 = 1 << 14;
/// BAR with the MSI-X table, in every function of the board.
const MSIX_BAR: Bar = Bar { index: 2, size: Msix::BAR_LEN };

/// Effect of a write to configuration space on the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigEvent {
    /// A function-level reset.
    pub reset: bool,
    /// The number or state of VFs has changed to this.
    pub vfs: Option<VfState>,
}

struct State {
    space: ConfigSpace,
    vfs: VfState,
}

/// A function's PCI side. BAR 2 holds the MSI-X table; the other BARs are the function's own.
pub struct Endpoint {
    state: Mutex<State>,
    express: usize,
    msix_at: usize,
    sriov: Option<Sriov>,
    bars: Vec<Bar>,
    bus_master: AtomicBool,
    msix: Msix,
    intx: Intx,
}

impl Endpoint {
    /// A function with these BARs (besides BAR 2) and vectors. `extend` adds capabilities of its own.
    pub fn new(
        id: Identity,
        bars: &[Bar],
        vectors: u16,
        sriov: Option<SriovLayout<'_>>,
        extend: impl FnOnce(&mut ConfigBuilder),
    ) -> Self {
        let bars: Vec<Bar> = bars.iter().copied().chain([MSIX_BAR]).collect();
        let mut builder = bars.iter().fold(ConfigBuilder::new(id), |builder, bar| builder.bar(*bar));
        let express = builder.express();
        let msix_at = builder.msix(vectors, MSIX_BAR.index, Msix::TABLE, Msix::PENDING);
        extend(&mut builder);
        let sriov = sriov.map(|layout| Sriov::add(&mut builder, layout));
        Self {
            state: Mutex::new(State { space: builder.build(), vfs: VfState::default() }),
            express,
            msix_at,
            sriov,
            bars,
            bus_master: AtomicBool::new(false),
            msix: Msix::new(vectors),
            intx: Intx::default(),
        }
    }

    /// The BARs of every VF of the board, for the PF's SR-IOV capability: the function's own and the MSI-X table's.
    pub fn with_msix_bar(bars: &[Bar]) -> Vec<Bar> {
        bars.iter().copied().chain([MSIX_BAR]).collect()
    }

    /// Length of BAR `index`; 0 if there is none.
    pub fn bar_len(&self, index: u32) -> u64 {
        self.bars.iter().find(|bar| bar.index == index as usize).map_or(0, |bar| bar.size)
    }

    /// Whether BAR `index` is the one with the MSI-X table.
    pub fn is_msix_bar(&self, index: u32) -> bool {
        index as usize == MSIX_BAR.index
    }

    /// The interrupts.
    pub fn msix(&self) -> &Msix {
        &self.msix
    }

    /// The interrupt of a machine without MSI-X.
    pub fn intx(&self) -> &Intx {
        &self.intx
    }

    /// Whether the function may access memory and interrupt.
    pub fn bus_master(&self) -> bool {
        self.bus_master.load(Ordering::Acquire)
    }

    /// Interrupts, if bus mastering is on.
    pub fn interrupt(&self, vector: u16) {
        if self.bus_master() {
            self.msix.trigger(vector);
        }
    }

    /// Reads configuration space.
    pub fn config_read(&self, offset: usize, into: &mut [u8]) {
        self.lock().space.read(offset, into);
        if let Some(status) = STATUS.checked_sub(offset).and_then(|at| into.get_mut(at))
            && self.intx.is_up()
        {
            *status |= INTERRUPT_STATUS;
        }
    }

    /// Writes configuration space. The caller executes the event that is returned; a reset includes [`reset`](Self::reset).
    pub fn config_write(&self, offset: usize, from: &[u8]) -> ConfigEvent {
        let mut guard = self.lock();
        let State { space, vfs } = &mut *guard;
        let mut event = ConfigEvent { reset: self.starts_reset(offset, from), vfs: None };
        if let Some(sriov) = &self.sriov {
            sriov.prepare(space);
            let old = sriov.num_vfs(space);
            space.write(offset, from);
            let now = sriov.settle(space, old);
            if now != std::mem::replace(vfs, now) {
                event.vfs = Some(now);
            }
        } else {
            space.write(offset, from);
        }
        self.bus_master.store(space.u16(COMMAND) & BUS_MASTER != 0, Ordering::Release);
        let msix_on = space.u16(self.msix_at + 2) & MSIX_ENABLE != 0;
        self.intx.disable(msix_on || space.u16(COMMAND) & INTX_DISABLE != 0);
        let touches_msix = offset < self.msix_at + 4 && offset.saturating_add(from.len()) > self.msix_at + 2;
        if touches_msix {
            let control = space.u16(self.msix_at + 2);
            // Without Enable the client's eventfds decide alone, as VFIO enables MSI-X behind the scenes.
            self.msix.mask_function(control & MSIX_ENABLE != 0 && control & MSIX_MASK != 0);
        }
        event
    }

    fn starts_reset(&self, offset: usize, from: &[u8]) -> bool {
        let high_byte = self.express + DEVICE_CONTROL + 1;
        let value = high_byte.checked_sub(offset).and_then(|i| from.get(i));
        value.is_some_and(|value| u16::from(*value) << 8 & INITIATE_FLR != 0)
    }

    /// Puts everything back to its state after power-on, except the client's eventfds. Tells whether VFs were lost.
    pub fn reset(&self) -> bool {
        let mut state = self.lock();
        state.space.reset();
        self.bus_master.store(false, Ordering::Release);
        let had = std::mem::take(&mut state.vfs);
        drop(state);
        self.intx.set_level(|| false);
        self.intx.disable(false);
        self.msix.reset();
        had.count > 0
    }

    /// VFs as enabled now.
    pub fn vfs(&self) -> VfState {
        self.lock().vfs
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
