//! Events of a switch: links of uplinks that go up and down.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_flow::Port;
use culvert_offload::{Event, EventFd, EventQueue, Result};

/// The link state of each uplink.
type LinkState = [bool; Port::UPLINKS as usize];

/// A worker's end.
pub(super) struct LinkReporter {
    sender: Sender<Event>,
    wake: EventFd,
    worker: usize,
    links: Arc<Mutex<Links>>,
}

/// Links as the workers see them: an uplink is up if it is up at one of them.
struct Links {
    by_worker: Vec<LinkState>,
    reported: LinkState,
}

/// The slow path's end.
pub(super) struct SwitchEvents {
    receiver: Receiver<Event>,
    wake: EventFd,
}

/// The ends of so many workers, and the slow path's end.
pub(super) fn events(workers: usize) -> Result<(Vec<LinkReporter>, SwitchEvents)> {
    let (sender, receiver) = channel();
    let wake = EventFd::new()?;
    let links = Links { by_worker: vec![LinkState::default(); workers], reported: LinkState::default() };
    let links = Arc::new(Mutex::new(links));
    let reporter = |worker| LinkReporter {
        sender: sender.clone(),
        wake: wake.clone(),
        worker,
        links: Arc::clone(&links),
    };
    Ok(((0..workers).map(reporter).collect(), SwitchEvents { receiver, wake }))
}

impl LinkReporter {
    /// Reports the links of this worker's uplinks.
    pub(super) fn report(&self, state: LinkState) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.by_worker[self.worker] = state;
        let all = std::array::from_fn(|n| links.by_worker.iter().any(|up| up[n]));
        // The lock keeps events in order. The slow path may have ended.
        if all != links.reported && self.sender.send(Event::Link(all)).is_ok() {
            let _ = self.wake.signal();
        }
        links.reported = all;
    }
}

impl EventQueue for SwitchEvents {
    fn next(&self) -> Option<Event> {
        // An event that cannot be cleared costs one more look.
        let _ = self.wake.try_clear();
        self.receiver.try_recv().ok()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
