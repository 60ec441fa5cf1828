//! INTx: the one level-triggered interrupt of a function whose machine has no MSI-X.
//!
//! As with the kernel's VFIO the client gives an eventfd, and a line that goes up masks itself: it is signalled once, and
//! again only when the client has unmasked it and the line is still up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::msix::Msix;
use crate::vfio_user::{IrqAction, IrqSet, MSIX_INDEX};

#[derive(Default)]
struct State {
    /// The function asks for attention.
    up: bool,
    masked: bool,
    /// By Interrupt Disable in the command register, or because MSI-X is on.
    disabled: bool,
}

/// A function's INTx line.
pub struct Intx {
    /// The client's eventfd, as a vector of its own.
    event: Msix,
    state: Mutex<State>,
}

impl Default for Intx {
    fn default() -> Self {
        Self { event: Msix::new(1), state: Mutex::default() }
    }
}

impl Intx {
    /// Raises the line, or lowers it, as `up` says, which no other change comes between.
    pub fn set_level(&self, up: impl FnOnce() -> bool) {
        let mut state = self.lock();
        state.up = up();
        self.update(&mut state);
    }

    /// Whether the line is up (Interrupt Status, PCI 6.2.3).
    pub fn is_up(&self) -> bool {
        self.lock().up
    }

    /// Switches the line off: by Interrupt Disable, or while MSI-X is on (virtio 1.2, 4.1.4.5.1).
    pub(super) fn disable(&self, disabled: bool) {
        let mut state = self.lock();
        state.disabled = disabled;
        self.update(&mut state);
    }

    /// Carries out a checked `SET_IRQS`.
    pub fn set(&self, set: IrqSet) -> Result<(), Errno> {
        let mut state = self.lock();
        let on = |flags: &[bool]| flags.first() == Some(&true);
        match &set.action {
            IrqAction::Mask(flags) => state.masked |= on(flags),
            IrqAction::Unmask(flags) => state.masked &= !on(flags),
            IrqAction::Assign(_) | IrqAction::Release => {
                self.event.set(IrqSet { index: MSIX_INDEX, ..set })?;
                state.masked = false;
            }
            IrqAction::Trigger(_) => return self.event.set(IrqSet { index: MSIX_INDEX, ..set }),
        }
        self.update(&mut state);
        Ok(())
    }

    /// Lets go of the eventfd: the client is gone.
    pub(crate) fn release(&self) {
        self.event.release();
        *self.lock() = State::default();
    }

    /// Signals a line that is up and not masked, and masks it.
    fn update(&self, state: &mut State) {
        if state.up && !state.masked && !state.disabled {
            state.masked = true;
            self.event.trigger(0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
