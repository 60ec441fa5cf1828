//! Events of a switch: links of uplinks that go up and down. Only the newest state waits, however often they do.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_flow::Port;
use culvert_offload::{Event, EventFd, EventQueue, Result};

/// The link state of each uplink.
type LinkState = [bool; Port::UPLINKS as usize];

/// A worker's end.
pub(super) struct LinkReporter {
    wake: EventFd,
    worker: usize,
    links: Arc<Mutex<Links>>,
}

/// Links as the workers see them: an uplink is up if it is up at one of them.
struct Links {
    by_worker: Vec<LinkState>,
    reported: LinkState,
    /// The state that the slow path has not taken yet.
    unread: Option<LinkState>,
}

/// The slow path's end.
pub(super) struct SwitchEvents {
    links: Arc<Mutex<Links>>,
    wake: EventFd,
}

/// The ends of so many workers, and the slow path's end.
pub(super) fn events(workers: usize) -> Result<(Vec<LinkReporter>, SwitchEvents)> {
    let wake = EventFd::new()?;
    let links = Links {
        by_worker: vec![LinkState::default(); workers],
        reported: LinkState::default(),
        unread: None,
    };
    let links = Arc::new(Mutex::new(links));
    let reporter = |worker| LinkReporter { wake: wake.clone(), worker, links: Arc::clone(&links) };
    Ok(((0..workers).map(reporter).collect(), SwitchEvents { links, wake }))
}

impl LinkReporter {
    /// Reports the links of this worker's uplinks.
    pub(super) fn report(&self, state: LinkState) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.by_worker[self.worker] = state;
        let all = std::array::from_fn(|n| links.by_worker.iter().any(|up| up[n]));
        if all != links.reported {
            (links.reported, links.unread) = (all, Some(all));
            drop(links);
            // If the event cannot be set, the slow path looks at its next tick.
            let _ = self.wake.signal();
        }
    }
}

impl EventQueue for SwitchEvents {
    fn next(&self) -> Option<Event> {
        // An event that cannot be cleared costs one more look.
        let _ = self.wake.try_clear();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.unread.take().map(Event::Link)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
