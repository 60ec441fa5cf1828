//! What the data path tells the slow path by itself: links that come and go.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use culvert_nic::{Event, Interrupt, Result};

use crate::target::EventSource;

/// The worker's end.
pub(super) struct Reporter {
    sender: Sender<Event>,
    wake: Interrupt,
}

/// The slow path's end.
pub(super) struct Events {
    receiver: Receiver<Event>,
    wake: Interrupt,
}

pub(super) fn events() -> Result<(Reporter, Events)> {
    let (sender, receiver) = channel();
    let wake = Interrupt::new()?;
    Ok((Reporter { sender, wake: wake.clone() }, Events { receiver, wake }))
}

impl Reporter {
    pub(super) fn report(&self, event: Event) {
        // Nobody has to listen.
        if self.sender.send(event).is_ok() {
            let _ = self.wake.signal();
        }
    }
}

impl EventSource for Events {
    fn next(&self) -> Option<Event> {
        // An event that cannot be cleared costs one more look.
        let _ = self.wake.try_clear();
        self.receiver.try_recv().ok()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
