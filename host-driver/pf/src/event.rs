//! The queue of events that the watchdog reports.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use culvert_offload::Event;
use culvert_pci::Interrupt;

use crate::Result;

/// Events in order, with a descriptor that is readable while there may be events.
pub struct Events {
    receiver: Receiver<Event>,
    wake: Interrupt,
}

impl Events {
    /// Takes the oldest event.
    pub fn next(&self) -> Option<Event> {
        // If the descriptor cannot be read, the events stay in the channel until the next call.
        let _ = self.wake.try_clear();
        self.receiver.try_recv().ok()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The sending half.
#[derive(Clone)]
pub(crate) struct Reporter {
    sender: Sender<Event>,
    wake: Interrupt,
}

impl Reporter {
    pub(crate) fn report(&self, event: Event) {
        // The owner may have dropped its half.
        if self.sender.send(event).is_ok() {
            let _ = self.wake.signal();
        }
    }
}

/// Creates an empty event queue.
pub(crate) fn events() -> Result<(Reporter, Events)> {
    let (sender, receiver) = channel();
    let wake = Interrupt::new()?;
    Ok((Reporter { sender, wake: wake.clone() }, Events { receiver, wake }))
}
