//! Worker handoff: packets that go from one worker to another, in rings with one producer and one consumer each.
//!
//! A ring is shared fairly between vports. A vport may have as many packets in it as are free beside them: a flood gets
//! half of the ring, and the next vport finds room. A guest is not polled before its packets have room in all rings;
//! packets from the wire without room are dropped with the reason `worker_full`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use culvert_flow::Port;
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::BURST;
use crate::notifier::Notifier;
use crate::packet::Packet;
use crate::steering::{NO_VPORT, SteeringTable};

/// Packets that a ring holds.
const CAPACITY: usize = 4096;
/// Room that a guest needs to be polled: for what the slow path reinjects for it meanwhile, and a burst.
const ROOM: usize = 1024;
const _: () = assert!(ROOM >= crate::upcall_queue::SHARE as usize + BURST && ROOM < CAPACITY / 2);

/// A packet on its way to another worker.
pub(super) struct HandoffPacket {
    pub(super) packet: Packet,
    /// The port that it leaves by. `None`: it has yet to pass the core.
    pub(super) to: Option<Port>,
    /// The vport whose share of the ring it uses.
    charged_vport: u16,
}

/// For each vport, how many of its packets were taken out of a ring. The consumer writes it.
type Taken = Arc<[AtomicU32]>;

/// The producer's end of a ring.
struct HandoffTx {
    ring: Producer<HandoffPacket>,
    /// For each vport, packets put in and, as last read, taken out.
    given: Vec<u32>,
    seen: Vec<u32>,
    taken: Taken,
    notifier: Arc<Notifier>,
    /// Whether the consumer has not yet been notified of a packet.
    dirty: bool,
}

impl HandoffTx {
    /// Whether a vport may put `n` more packets into the ring.
    #[inline]
    fn has_room(&mut self, charged_vport: u16, n: usize) -> bool {
        let vport = usize::from(charged_vport);
        let held = self.given[vport].wrapping_sub(self.seen[vport]) as usize;
        if held + n <= self.ring.cached_slots() {
            return true;
        }
        self.seen[vport] = self.taken[vport].load(Ordering::Relaxed);
        let held = self.given[vport].wrapping_sub(self.seen[vport]) as usize;
        held + n <= self.ring.slots()
    }

    #[inline]
    fn push(&mut self, handed: HandoffPacket) -> Result<(), Packet> {
        let vport = usize::from(handed.charged_vport);
        if !self.has_room(handed.charged_vport, 1) {
            return Err(handed.packet);
        }
        self.ring.push(handed).map_err(|PushError::Full(handed)| handed.packet)?;
        self.given[vport] = self.given[vport].wrapping_add(1);
        self.dirty = true;
        Ok(())
    }
}

/// The consumer's end of a ring.
struct HandoffRx {
    ring: Consumer<HandoffPacket>,
    taken: Taken,
}

/// A worker's ends of all its rings, and the steering table that says which packets go there. A single worker has no
/// rings.
#[derive(Default)]
pub(super) struct Handoff {
    me: u8,
    pub(super) steering: SteeringTable,
    /// By worker; `None` for this one.
    tx: Vec<Option<HandoffTx>>,
    rx: Vec<HandoffRx>,
}

/// Rings between as many workers as there are notifiers.
pub(super) fn handoffs(notifiers: &[Arc<Notifier>]) -> Vec<Handoff> {
    let mut all: Vec<Handoff> =
        (0..notifiers.len()).map(|me| Handoff { me: me as u8, ..Handoff::default() }).collect();
    let vports = usize::from(NO_VPORT) + 1;
    for from in 0..all.len() {
        for (to, notifier) in notifiers.iter().enumerate() {
            if from == to {
                all[from].tx.push(None);
                continue;
            }
            let (producer, consumer) = RingBuffer::new(CAPACITY);
            let taken: Taken = (0..vports).map(|_| AtomicU32::new(0)).collect();
            let (given, seen) = (vec![0; vports], vec![0; vports]);
            all[to].rx.push(HandoffRx { ring: consumer, taken: Arc::clone(&taken) });
            let notifier = Arc::clone(notifier);
            all[from].tx.push(Some(HandoffTx { ring: producer, given, seen, taken, notifier, dirty: false }));
        }
    }
    all
}

impl Handoff {
    /// Whether there is no other worker.
    #[inline(always)]
    pub(super) fn is_alone(&self) -> bool {
        self.rx.is_empty()
    }

    /// Whether a worker is this one.
    #[inline(always)]
    pub(super) fn is_me(&self, worker: u8) -> bool {
        worker == self.me
    }

    /// Whether what a vport sends finds room in all rings.
    #[inline]
    pub(super) fn has_room(&mut self, vport: u16) -> bool {
        let charged = vport.min(NO_VPORT);
        self.tx.iter_mut().flatten().all(|tx| tx.has_room(charged, ROOM))
    }

    /// Hands a packet to a worker. Returns it if there is no room.
    #[inline]
    pub(super) fn push(
        &mut self,
        worker: u8,
        packet: Packet,
        to: Option<Port>,
        charged_vport: u16,
    ) -> Result<(), Packet> {
        match self.tx.get_mut(usize::from(worker)).and_then(Option::as_mut) {
            Some(tx) => tx.push(HandoffPacket { packet, to, charged_vport: charged_vport.min(NO_VPORT) }),
            None => Err(packet),
        }
    }

    /// How many other workers hand packets to this one.
    pub(super) fn producers(&self) -> usize {
        self.rx.len()
    }

    /// Takes the next packet of a producer.
    #[inline]
    pub(super) fn pop(&mut self, producer: usize) -> Option<HandoffPacket> {
        let rx = self.rx.get_mut(producer)?;
        let handed = rx.ring.pop().ok()?;
        let taken = &rx.taken[usize::from(handed.charged_vport)];
        // This worker is the only writer.
        taken.store(taken.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Some(handed)
    }

    /// Whether all rings to this worker are empty.
    pub(super) fn is_empty(&self) -> bool {
        self.rx.iter().all(|rx| rx.ring.is_empty())
    }

    /// Notifies the workers that packets were handed to.
    #[inline]
    pub(super) fn notify(&mut self) {
        for tx in self.tx.iter_mut().flatten() {
            if std::mem::take(&mut tx.dirty) {
                // A worker that cannot be woken looks ten times a second.
                let _ = tx.notifier.notify();
            }
        }
    }
}

#[cfg(test)]
mod tests;
