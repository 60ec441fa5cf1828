//! MSI-X: the vector table and pending bits of a BAR, and the eventfds that a client wants signalled instead of messages.
//!
//! A client takes the place of the system that would write a vector's address and data: giving a vector an eventfd arms
//! it, as the kernel's VFIO does, whatever the table says. A mask bit written afterwards (in the table, for the whole
//! function, or by `SET_IRQS`) holds the interrupt back in its pending bit until it is cleared.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use culvert_virtio::{EventSignal, SignalError};
use rustix::io::Errno;

use crate::vfio_user::{IrqAction, IrqSet};

/// Bytes of a table entry: address, data, control.
const ENTRY_LEN: usize = 16;
/// Offset of the control word, whose bit 0 masks.
const CONTROL: usize = 12;
/// Where the pending bits begin in the BAR.
pub(super) const PENDING_AT: usize = 0x800;

struct Vector {
    event: Option<EventSignal>,
    masked: bool,
    pending: bool,
    /// Address and data, which only their writer reads.
    message: [u8; CONTROL],
}

impl Vector {
    fn new() -> Self {
        Self { event: None, masked: true, pending: false, message: [0; CONTROL] }
    }
}

struct State {
    vectors: Vec<Vector>,
    function_masked: bool,
}

/// A function's MSI-X vectors. At most 128, so that table and pending bits fit one page.
///
/// The engine's thread and the client's both take the lock. Nothing under it waits for the client: see [`EventSignal`].
pub struct Msix(Mutex<State>);

impl Msix {
    /// Bytes of the BAR that holds table and pending bits.
    pub const BAR_LEN: u64 = 0x1000;
    /// Offsets of table and pending bits in it.
    pub const TABLE: u32 = 0;
    /// See [`TABLE`](Self::TABLE).
    pub const PENDING: u32 = PENDING_AT as u32;

    /// `count` vectors, all masked.
    pub fn new(count: u16) -> Self {
        let count = usize::from(count).min(PENDING_AT / ENTRY_LEN);
        let vectors = (0..count).map(|_| Vector::new()).collect();
        Self(Mutex::new(State { vectors, function_masked: false }))
    }

    /// Number of vectors.
    pub fn count(&self) -> u32 {
        self.lock().vectors.len() as u32
    }

    /// Interrupts, or notes that it would have.
    pub fn trigger(&self, vector: u16) {
        let mut state = self.lock();
        let function_masked = state.function_masked;
        if let Some(vector) = state.vectors.get_mut(usize::from(vector)) {
            if vector.event.is_none() {
                return;
            }
            vector.pending = true;
            if !function_masked {
                vector.deliver();
            }
        }
    }

    /// Carries out a checked `SET_IRQS`.
    ///
    /// # Errors
    /// `EINVAL` for vectors that are not there and files that are not eventfds.
    pub fn set(&self, set: IrqSet) -> Result<(), Errno> {
        let range = set.start as usize..(set.start as usize).saturating_add(set.count as usize);
        let (action, events) = match set.action {
            IrqAction::Assign(files) => (None, take_events(files)?),
            action => (Some(action), Vec::new()),
        };
        // Closed after the lock is free.
        let mut replaced = Vec::new();
        let mut state = self.lock();
        let function_masked = state.function_masked;
        let vectors = state.vectors.get_mut(range).ok_or(Errno::INVAL)?;
        let chosen = |flags: Vec<bool>| flags.into_iter().chain(std::iter::repeat(false));
        match action {
            None | Some(IrqAction::Assign(_)) => {
                for (vector, event) in vectors.iter_mut().zip(events) {
                    replaced.push(vector.event.replace(event));
                    vector.masked = false;
                }
            }
            Some(IrqAction::Release) => {
                for vector in vectors {
                    replaced.push(vector.event.take());
                    vector.masked = true;
                    vector.pending = false;
                }
            }
            Some(IrqAction::Trigger(flags)) => {
                for (vector, _) in vectors.iter_mut().zip(chosen(flags)).filter(|(_, on)| *on) {
                    vector.signal();
                }
            }
            Some(IrqAction::Mask(flags)) => {
                for (vector, _) in vectors.iter_mut().zip(chosen(flags)).filter(|(_, on)| *on) {
                    vector.masked = true;
                }
            }
            Some(IrqAction::Unmask(flags)) => {
                for (vector, _) in vectors.iter_mut().zip(chosen(flags)).filter(|(_, on)| *on) {
                    vector.masked = false;
                    if !function_masked {
                        vector.deliver();
                    }
                }
            }
        }
        drop(state);
        Ok(())
    }

    /// The mask for all vectors in the capability's control word.
    pub fn mask_function(&self, masked: bool) {
        let mut state = self.lock();
        state.function_masked = masked;
        if !masked {
            state.vectors.iter_mut().for_each(Vector::deliver);
        }
    }

    /// Resets table, masks and pending bits. Eventfds belong to the client and stay; their vectors stay armed.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.function_masked = false;
        for vector in &mut state.vectors {
            *vector = Vector { masked: vector.event.is_none(), event: vector.event.take(), ..Vector::new() };
        }
    }

    /// Lets go of every eventfd: the client is gone.
    pub fn release(&self) {
        // Closed after the lock is free.
        let mut replaced = Vec::new();
        let mut state = self.lock();
        state.function_masked = false;
        replaced.extend(state.vectors.iter_mut().map(|vector| std::mem::replace(vector, Vector::new())));
        drop(state);
    }

    /// Reads the BAR.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        let state = self.lock();
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = usize::try_from(offset).ok().and_then(|at| state.byte(at.checked_add(i)?)).unwrap_or(0);
        }
    }

    /// Writes the BAR. Pending bits cannot be written.
    pub fn write(&self, offset: u64, from: &[u8]) {
        let mut state = self.lock();
        let function_masked = state.function_masked;
        let Ok(offset) = usize::try_from(offset) else { return };
        for (i, value) in from.iter().enumerate() {
            let at = offset.saturating_add(i);
            let Some(vector) = state.vectors.get_mut(at / ENTRY_LEN) else { return };
            match at % ENTRY_LEN {
                CONTROL => {
                    vector.masked = value & 1 != 0;
                    if !function_masked {
                        vector.deliver();
                    }
                }
                inside if inside < CONTROL => vector.message[inside] = *value,
                _ => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn byte(&self, at: usize) -> Option<u8> {
        if at >= PENDING_AT {
            let eight = self.vectors.chunks(8).nth(at - PENDING_AT)?;
            return Some(
                eight.iter().enumerate().fold(0, |bits, (i, vector)| bits | u8::from(vector.pending) << i),
            );
        }
        let vector = self.vectors.get(at / ENTRY_LEN)?;
        match at % ENTRY_LEN {
            CONTROL => Some(u8::from(vector.masked)),
            inside => Some(vector.message.get(inside).copied().unwrap_or(0)),
        }
    }
}

impl Vector {
    /// Sends pending interrupts, unless they are masked.
    fn deliver(&mut self) {
        if self.pending && !self.masked && self.event.is_some() {
            self.pending = false;
            self.signal();
        }
    }

    fn signal(&self) {
        if let Some(event) = &self.event {
            event.signal();
        }
    }
}

/// Takes the files of a client, which must be eventfds: nothing else is known not to wait for its owner.
fn take_events(files: Vec<OwnedFd>) -> Result<Vec<EventSignal>, Errno> {
    let events: Result<Vec<_>, _> = files.into_iter().map(EventSignal::new).collect();
    events.map_err(|error| {
        tracing::warn!(%error, "refused a client's eventfds of MSI-X");
        match error {
            SignalError::NotEventFd => Errno::INVAL,
            SignalError::Unsupported(errno) | SignalError::System(errno) => errno,
            SignalError::LimitReached => Errno::AGAIN,
        }
    })
}
