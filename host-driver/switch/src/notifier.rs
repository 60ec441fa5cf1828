//! Wakes a thread that sleeps in poll(2). A thread that is awake looks at its queue by itself and costs nothing.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use culvert_offload::{Error, EventFd, Result};

/// Wakes a thread that takes messages from a queue.
pub struct Notifier {
    event: EventFd,
    asleep: AtomicBool,
}

impl Notifier {
    /// For a thread that is awake.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> Result<Self> {
        Ok(Notifier { event: EventFd::new()?, asleep: AtomicBool::new(false) })
    }

    /// Wakes the thread if it sleeps. Called after a message was put into the queue.
    ///
    /// # Errors
    /// The eventfd cannot be written.
    pub fn notify(&self) -> Result<()> {
        // With the fence of the sleeper: it finds the message, or we find it asleep.
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.event.signal().map_err(|source| Error::System { what: "waking a worker", source })
        } else {
            Ok(())
        }
    }

    /// Says that the thread is about to sleep. It looks at its queue after this, and does not sleep if there is a message.
    pub fn sleeping(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Says that the thread is awake.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        // An event that cannot be cleared costs one more round.
        let _ = self.event.try_clear();
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests;
