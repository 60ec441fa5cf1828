//! Waking a thread that sleeps, and nobody else: one that is awake looks for what it was told by itself.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use culvert_pf::Interrupt;

/// The bell of a thread that takes messages from a queue.
pub(super) struct Bell {
    event: Interrupt,
    asleep: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> Result<Self, culvert_pf::Error> {
        Ok(Bell { event: Interrupt::new()?, asleep: AtomicBool::new(false) })
    }

    /// Called after a message was put into the queue.
    pub(super) fn ring(&self) -> Result<(), culvert_pf::Error> {
        // With the fence of the sleeper: it finds the message, or we find it asleep.
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.event.signal().map_err(Into::into)
        } else {
            Ok(())
        }
    }

    /// The thread is about to sleep. It looks at its queue after this and does not sleep if there is something.
    pub(super) fn sleeping(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The thread does not sleep, or not any more.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        // An event that cannot be cleared costs one more round.
        let _ = self.event.try_clear();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests;
