//! Wakes the queue engine: one eventfd that every function of the board signals.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the engine's thread. Cloning gives another handle of the same eventfd.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<OwnedFd>);

impl Notifier {
    /// An eventfd that is not readable.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Makes the eventfd readable.
    pub fn notify(&self) {
        // It fails only when the counter is full, and then the eventfd is readable.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Clears all notifications so far. Call it before looking for work, so that a later one is not lost.
    pub fn clear(&self) {
        // It fails only when there were none.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
