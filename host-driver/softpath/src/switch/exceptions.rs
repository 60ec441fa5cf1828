//! The queue of packets to the slow path: bounded, with a share for each vport.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use culvert_abi::pf::Entry;
use culvert_flow::Port;
use culvert_packet::VportId;
use culvert_pf::{Interrupt, Result};

use crate::target::PacketSource;

/// Packets that may be in the queue.
pub(super) const LENGTH: usize = 8192;
/// Packets from the wire that may be in it: what guests ask for has room beside a flood from outside.
const FROM_WIRE: usize = LENGTH / 2;
/// Packets of a vport that may be at the slow path.
pub(super) const SHARE: u32 = 256;

/// What both ends know.
struct Shared {
    /// Packets in the queue.
    queued: AtomicUsize,
    /// The slow path sleeps, or is about to.
    sleeps: AtomicBool,
}

/// The worker's end.
pub(super) struct Exceptions {
    sender: SyncSender<(Entry, Vec<u8>)>,
    shared: Arc<Shared>,
    wake: Interrupt,
    /// Packets of each vport that are at the slow path.
    outstanding: Vec<u32>,
}

/// The slow path's end.
pub(super) struct Source {
    receiver: Receiver<(Entry, Vec<u8>)>,
    shared: Arc<Shared>,
    wake: Interrupt,
    /// Whether the event may be set.
    armed: Cell<bool>,
}

pub(super) fn queue() -> Result<(Exceptions, Source)> {
    let (sender, receiver) = sync_channel(LENGTH);
    let shared = Arc::new(Shared { queued: AtomicUsize::new(0), sleeps: AtomicBool::new(false) });
    let wake = Interrupt::new()?;
    let outstanding = vec![0; usize::from(Port::MAX_VPORTS)];
    let source =
        Source { receiver, shared: Arc::clone(&shared), wake: wake.clone(), armed: Cell::new(false) };
    Ok((Exceptions { sender, shared, wake, outstanding }, source))
}

impl Exceptions {
    /// Another worker's end of the same queue.
    pub(super) fn sibling(&self) -> Self {
        Exceptions {
            sender: self.sender.clone(),
            shared: Arc::clone(&self.shared),
            wake: self.wake.clone(),
            outstanding: vec![0; self.outstanding.len()],
        }
    }

    /// Whether a vport has used up its share: it is not listened to until packets of it come back.
    pub(super) fn is_used_up(&self, at: Port) -> bool {
        matches!(at, Port::Vport(VportId(n)) if self.outstanding.get(usize::from(n)).is_some_and(|n| *n >= SHARE))
    }

    /// Gives a packet, or a copy of one, to the slow path. `false`: there is no room.
    pub(super) fn give(&mut self, entry: &Entry, frame: Vec<u8>) -> bool {
        let (input, copy) = (Port::from_bits(entry.port), entry.target & 1 != 0);
        let room = match input {
            Port::Vport(_) => LENGTH,
            _ => FROM_WIRE,
        };
        if self.shared.queued.load(Ordering::Relaxed) >= room {
            return false;
        }
        self.shared.queued.fetch_add(1, Ordering::SeqCst);
        if self.sender.try_send((*entry, frame)).is_err() {
            self.shared.queued.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if let (Port::Vport(id), false) = (input, copy)
            && let Some(n) = self.outstanding.get_mut(usize::from(id.0))
        {
            *n += 1;
        }
        true
    }

    /// Wakes the slow path if it sleeps. Called after each burst.
    pub(super) fn ring(&self) {
        if self.shared.queued.load(Ordering::SeqCst) > 0 && self.shared.sleeps.swap(false, Ordering::SeqCst) {
            // An event that cannot be set leaves the slow path asleep until its next look, a second at most.
            let _ = self.wake.signal();
        }
    }

    /// A port is another worker's from now on, and so is what comes back of its packets.
    pub(super) fn forget(&mut self, at: Port) {
        if let Port::Vport(id) = at
            && let Some(n) = self.outstanding.get_mut(usize::from(id.0))
        {
            *n = 0;
        }
    }

    /// A packet of a port has come back.
    pub(super) fn returned(&mut self, input: Port) {
        if let Port::Vport(id) = input
            && let Some(n) = self.outstanding.get_mut(usize::from(id.0))
        {
            *n = n.saturating_sub(1);
        }
    }
}

impl PacketSource for Source {
    fn pop(&mut self) -> Result<Option<(Entry, Vec<u8>)>> {
        let Ok(packet) = self.receiver.try_recv() else { return Ok(None) };
        self.shared.queued.fetch_sub(1, Ordering::SeqCst);
        Ok(Some(packet))
    }

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
