//! What the NIC reports by itself.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use culvert_offload::Event;
use culvert_pci::Interrupt;

use crate::Result;

/// Events in order, with a descriptor that is readable while there may be some.
pub struct Events {
    receiver: Receiver<Event>,
    wake: Interrupt,
}

impl Events {
    /// The oldest event.
    pub fn next(&self) -> Option<Event> {
        // A descriptor that cannot be read leaves the events where they are; they are asked for at every wake-up.
        let _ = self.wake.try_clear();
        self.receiver.try_recv().ok()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The watchdog's end.
pub(crate) struct Reporter {
    sender: Sender<Event>,
    wake: Interrupt,
}

impl Reporter {
    pub(crate) fn report(&self, event: Event) {
        // Nobody has to listen.
        if self.sender.send(event).is_ok() {
            let _ = self.wake.signal();
        }
    }
}

pub(crate) fn events() -> Result<(Reporter, Events)> {
    let (sender, receiver) = channel();
    let wake = Interrupt::new()?;
    Ok((Reporter { sender, wake: wake.clone() }, Events { receiver, wake }))
}
