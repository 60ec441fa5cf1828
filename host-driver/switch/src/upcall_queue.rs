//! The queue of upcalls to the slow path: bounded, with a share for each vport.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use culvert_flow::Port;
use culvert_offload::{EventFd, Result, RxQueue, Upcall, UpcallQueue};
use culvert_packet::VportId;

/// Upcalls that the queue holds.
pub(super) const CAPACITY: usize = 8192;
/// Upcalls for packets from the wire that the queue holds: guests' upcalls have room beside a flood from outside.
const FROM_WIRE: usize = CAPACITY / 2;
/// Packets of a vport that may be at the slow path.
pub(super) const SHARE: u32 = 256;

/// What both ends see.
struct Shared {
    /// Upcalls in the queue.
    queued: AtomicUsize,
    /// The slow path sleeps, or is about to.
    sleeps: AtomicBool,
}

/// A worker's end.
pub(super) struct UpcallTx {
    sender: SyncSender<Upcall>,
    shared: Arc<Shared>,
    wake: EventFd,
    /// Packets of each vport that are at the slow path.
    outstanding: Vec<u32>,
}

/// The slow path's end.
pub(super) struct UpcallRx {
    receiver: Receiver<Upcall>,
    shared: Arc<Shared>,
    wake: EventFd,
    /// Whether the event may be set.
    armed: Cell<bool>,
}

/// A queue for so many workers.
pub(super) fn upcall_queue(workers: usize) -> Result<(Vec<UpcallTx>, UpcallRx)> {
    let (sender, receiver) = sync_channel(CAPACITY);
    let shared = Arc::new(Shared { queued: AtomicUsize::new(0), sleeps: AtomicBool::new(false) });
    let wake = EventFd::new()?;
    let tx = |_| UpcallTx {
        sender: sender.clone(),
        shared: Arc::clone(&shared),
        wake: wake.clone(),
        outstanding: vec![0; usize::from(Port::MAX_VPORTS)],
    };
    let all = (0..workers).map(tx).collect();
    Ok((all, UpcallRx { receiver, shared, wake, armed: Cell::new(false) }))
}

impl UpcallTx {
    /// Whether a vport has used its share: the worker does not poll it until packets of it come back.
    pub(super) fn is_used_up(&self, at: Port) -> bool {
        matches!(at, Port::Vport(VportId(n)) if self.outstanding.get(usize::from(n)).is_some_and(|n| *n >= SHARE))
    }

    /// Sends an upcall. `false`: the queue is full.
    pub(super) fn send(&mut self, upcall: Upcall) -> bool {
        let (input, is_copy) = (upcall.meta.input, upcall.meta.copy.is_some());
        let room = match input {
            Port::Vport(_) => CAPACITY,
            _ => FROM_WIRE,
        };
        if self.shared.queued.load(Ordering::Relaxed) >= room {
            return false;
        }
        self.shared.queued.fetch_add(1, Ordering::SeqCst);
        if self.sender.try_send(upcall).is_err() {
            self.shared.queued.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if let (Port::Vport(id), false) = (input, is_copy)
            && let Some(n) = self.outstanding.get_mut(usize::from(id.0))
        {
            *n += 1;
        }
        true
    }

    /// Wakes the slow path if it sleeps. Called after each burst.
    pub(super) fn notify(&self) {
        if self.shared.queued.load(Ordering::SeqCst) > 0 && self.shared.sleeps.swap(false, Ordering::SeqCst) {
            // If the event cannot be set, the slow path sleeps until its next tick, a second at most.
            let _ = self.wake.signal();
        }
    }

    /// Another worker serves a port from now on, and gets what comes back of its packets.
    pub(super) fn forget(&mut self, at: Port) {
        if let Port::Vport(id) = at
            && let Some(n) = self.outstanding.get_mut(usize::from(id.0))
        {
            *n = 0;
        }
    }

    /// A packet of a port has come back from the slow path.
    pub(super) fn complete(&mut self, input: Port) {
        if let Port::Vport(id) = input
            && let Some(n) = self.outstanding.get_mut(usize::from(id.0))
        {
            *n = n.saturating_sub(1);
        }
    }
}

impl UpcallQueue for UpcallRx {
    fn pop(&mut self) -> Result<Option<Upcall>> {
        let Ok(upcall) = self.receiver.try_recv() else { return Ok(None) };
        self.shared.queued.fetch_sub(1, Ordering::SeqCst);
        Ok(Some(upcall))
    }
}

impl RxQueue for UpcallRx {
    fn repost(&mut self) -> Result<()> {
        Ok(())
    }

    fn arm(&self) -> bool {
        self.armed.set(true);
        self.shared.sleeps.store(true, Ordering::SeqCst);
        self.shared.queued.load(Ordering::SeqCst) == 0
    }

    fn disarm(&self) {
        self.shared.sleeps.store(false, Ordering::SeqCst);
        if self.armed.take() {
            // An event that cannot be cleared costs one more look at the queue.
            let _ = self.wake.try_clear();
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
