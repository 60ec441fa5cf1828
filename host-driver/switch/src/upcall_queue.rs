//! The queue of upcalls to the slow path: bounded, for each kind of upcall, with a share for each vport.
//!
//! It counts [work](crate::work), so that large frames, which are copied, have no more of it than plain ones. Of each kind, a
//! vport may have as much in the queue as is free beside it: a flood gets half of the kind's room, and the next vport finds
//! room. What a guest sends waits in its ring while there is none; the rest is dropped as `upcall_full`.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use culvert_flow::Port;
use culvert_offload::{EventFd, Result, RxQueue, Upcall, UpcallQueue};
use culvert_packet::VportId;

use crate::steering::NO_VPORT;
use crate::work::{MAX_PACKET, TURN};

/// Flows that may be undecided at a worker.
pub(super) const PENDING: u32 = 8192;
/// Work of a vport's guest that may be at the slow path before its port is no longer polled.
pub(super) const SHARE: u32 = 256;

/// Kinds of upcalls, which do not use each other's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Packets of a guest, charged to its vport.
    Guest,
    /// Encapsulated packets from the wire, charged to the vport that they are for.
    Wire,
    /// Control packets of the PA network.
    Control,
    /// Copies of TCP control segments that are forwarded, charged to the vport that sent them or that they are for.
    Copy,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Guest, Kind::Wire, Kind::Control, Kind::Copy];

    /// Work of this kind that the queue holds.
    const fn limit(self) -> u32 {
        match self {
            Kind::Guest | Kind::Wire => 8192,
            Kind::Control | Kind::Copy => 2048,
        }
    }
}

/// Upcalls that the queue holds: no upcall is less than one unit of work.
const CAPACITY: usize =
    (Kind::Guest.limit() + Kind::Wire.limit() + Kind::Control.limit() + Kind::Copy.limit()) as usize;

/// Whom an upcall in the queue is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) kind: Kind,
    pub(super) vport: u16,
    pub(super) work: u32,
}

/// Work of one kind in the queue.
struct Held {
    all: AtomicU32,
    /// By vport, and behind them that of none.
    vports: Box<[AtomicU32]>,
}

/// What both ends see.
struct Shared {
    /// Upcalls in the queue.
    queued: AtomicUsize,
    /// By kind.
    held: [Held; Kind::ALL.len()],
    /// The slow path sleeps, or is about to.
    sleeps: AtomicBool,
}

impl Shared {
    fn of(&self, charge: Charge) -> [&AtomicU32; 2] {
        let held = &self.held[charge.kind as usize];
        [&held.all, &held.vports[usize::from(charge.vport.min(NO_VPORT))]]
    }

    fn has_room(&self, charge: Charge) -> bool {
        let [all, vport] = self.of(charge).map(|held| held.load(Ordering::Relaxed));
        all + vport + charge.work <= charge.kind.limit()
    }

    fn add(&self, charge: Charge) {
        for held in self.of(charge) {
            held.fetch_add(charge.work, Ordering::Relaxed);
        }
        self.queued.fetch_add(1, Ordering::SeqCst);
    }

    fn subtract(&self, charge: Charge) {
        for held in self.of(charge) {
            held.fetch_sub(charge.work, Ordering::Relaxed);
        }
        self.queued.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a vport's guest has at the slow path.
#[derive(Clone, Copy, Default)]
struct Outstanding {
    packets: u32,
    work: u32,
}

/// A worker's end.
pub(super) struct UpcallTx {
    sender: SyncSender<(Upcall, Charge)>,
    shared: Arc<Shared>,
    wake: EventFd,
    /// By vport.
    outstanding: Vec<Outstanding>,
}

/// The slow path's end.
pub(super) struct UpcallRx {
    receiver: Receiver<(Upcall, Charge)>,
    shared: Arc<Shared>,
    wake: EventFd,
    /// Whether the event may be set.
    armed: Cell<bool>,
}

/// A queue for so many workers.
pub(super) fn upcall_queue(workers: usize) -> Result<(Vec<UpcallTx>, UpcallRx)> {
    let (sender, receiver) = sync_channel(CAPACITY);
    let held = || Held {
        all: AtomicU32::new(0),
        vports: (0..=usize::from(NO_VPORT)).map(|_| AtomicU32::new(0)).collect(),
    };
    let shared = Arc::new(Shared {
        queued: AtomicUsize::new(0),
        held: Kind::ALL.map(|_| held()),
        sleeps: AtomicBool::new(false),
    });
    let wake = EventFd::new()?;
    let tx = |_| UpcallTx {
        sender: sender.clone(),
        shared: Arc::clone(&shared),
        wake: wake.clone(),
        outstanding: vec![Outstanding::default(); usize::from(Port::MAX_VPORTS)],
    };
    let all = (0..workers).map(tx).collect();
    Ok((all, UpcallRx { receiver, shared, wake, armed: Cell::new(false) }))
}

impl UpcallTx {
    fn outstanding(&mut self, of: Port) -> Option<&mut Outstanding> {
        let Port::Vport(id) = of else { return None };
        self.outstanding.get_mut(usize::from(id.0))
    }

    /// Whether a vport has used its share: the worker does not poll it until packets of it come back.
    pub(super) fn is_used_up(&self, at: Port) -> bool {
        matches!(at, Port::Vport(VportId(n))
            if self.outstanding.get(usize::from(n)).is_some_and(|o| o.work >= SHARE))
    }

    /// Whether a turn of a vport has room in the queue.
    #[inline]
    pub(super) fn has_room(&self, vport: VportId) -> bool {
        self.shared.has_room(Charge { kind: Kind::Guest, vport: vport.0, work: TURN + MAX_PACKET })
    }

    /// Sends an upcall. `false`: there is no room.
    pub(super) fn send(&mut self, upcall: Upcall, charge: Charge) -> bool {
        if !self.shared.has_room(charge) {
            return false;
        }
        let input = upcall.meta.input;
        self.shared.add(charge);
        if self.sender.try_send((upcall, charge)).is_err() {
            self.shared.subtract(charge);
            return false;
        }
        if charge.kind == Kind::Guest
            && let Some(outstanding) = self.outstanding(input)
        {
            outstanding.packets += 1;
            outstanding.work += charge.work;
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
        if let Some(outstanding) = self.outstanding(at) {
            *outstanding = Outstanding::default();
        }
    }

    /// A packet of a port has come back from the slow path. Which one is not known: it counts as an average one.
    pub(super) fn complete(&mut self, input: Port) {
        if let Some(outstanding) = self.outstanding(input)
            && let Some(average) = outstanding.work.checked_div(outstanding.packets)
        {
            outstanding.packets -= 1;
            outstanding.work = if outstanding.packets == 0 { 0 } else { outstanding.work - average };
        }
    }
}

impl UpcallQueue for UpcallRx {
    fn pop(&mut self) -> Result<Option<Upcall>> {
        let Ok((upcall, charge)) = self.receiver.try_recv() else { return Ok(None) };
        self.shared.subtract(charge);
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
