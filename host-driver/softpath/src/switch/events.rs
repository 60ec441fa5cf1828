//! What the data path tells the slow path by itself: links that come and go.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_flow::Port;
use culvert_pf::{Event, Interrupt, Result};

use crate::target::EventSource;

/// A worker's end.
pub(super) struct Reporter {
    sender: Sender<Event>,
    wake: Interrupt,
    worker: usize,
    links: Arc<Mutex<Links>>,
}

type Up = [bool; Port::UPLINKS as usize];

/// Links as the workers see them: an uplink is up if it is for one of them.
struct Links {
    seen: Vec<Up>,
    told: Up,
}

/// The slow path's end.
pub(super) struct Events {
    receiver: Receiver<Event>,
    wake: Interrupt,
}

/// The ends of so many workers, and the slow path's.
pub(super) fn events(workers: usize) -> Result<(Vec<Reporter>, Events)> {
    let (sender, receiver) = channel();
    let wake = Interrupt::new()?;
    let links = Arc::new(Mutex::new(Links { seen: vec![Up::default(); workers], told: Up::default() }));
    let reporter =
        |worker| Reporter { sender: sender.clone(), wake: wake.clone(), worker, links: Arc::clone(&links) };
    Ok(((0..workers).map(reporter).collect(), Events { receiver, wake }))
}

impl Reporter {
    /// The worker's links have changed.
    pub(super) fn links(&self, up: Up) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.seen[self.worker] = up;
        let all = std::array::from_fn(|n| links.seen.iter().any(|up| up[n]));
        // Nobody has to listen. What is told is in order, by the lock.
        if all != links.told && self.sender.send(Event::Link(all)).is_ok() {
            let _ = self.wake.signal();
        }
        links.told = all;
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
