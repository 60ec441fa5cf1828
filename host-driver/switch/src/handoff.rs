//! Worker handoff: packets that go from one worker to another, in rings with one producer and one consumer each.
//!
//! What a burst hands to a worker is written, published and notified at once: the consumer's core reads the producer's cache
//! lines once for a burst, not once for a packet.
//!
//! A ring is shared fairly between vports, by the [work](crate::work) of their packets. A vport may have as much work in it
//! as there are places free beside it: a flood gets half of the ring, and the next vport finds room. A guest is not polled
//! before its packets have room in all rings, nor while it has more in all rings together than its worker has buffers free;
//! packets from the wire without room are dropped with the reason `worker_full`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use culvert_flow::Port;
use culvert_packet::prefetch;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::BURST;
use crate::notifier::Notifier;
use crate::packet::Packet;
use crate::steering::{NO_VPORT, SteeringTable};
use crate::work::{self, MAX_PACKET, TURN};

/// Packets in all rings to a worker, if each may have its share of them.
const CAPACITY: usize = 16_384;
/// Packets that a ring holds, at most and at least.
const MAX_RING: usize = 4096;
const MIN_RING: usize = 2048;
/// Room that a guest needs to be polled: for what the slow path reinjects for it meanwhile, and a turn.
const ROOM: u32 = crate::upcall_queue::SHARE + 2 * (TURN + MAX_PACKET);
const _: () = assert!((ROOM as usize) < MIN_RING / 2);

/// Packets that each of the rings to a worker holds, of so many workers.
fn ring_capacity(workers: usize) -> usize {
    (CAPACITY / workers.saturating_sub(1).max(1)).clamp(MIN_RING, MAX_RING)
}

/// A packet on its way to another worker.
pub(super) struct HandoffPacket {
    pub(super) packet: Packet,
    /// The port that it leaves by. `None`: it has yet to pass the core.
    pub(super) to: Option<Port>,
    /// The vport whose share of the ring it uses.
    charged_vport: u16,
    /// How much of it.
    work: u16,
}

/// For each vport, and behind them for all together, how much work was taken out of a ring. The consumer writes it.
type Taken = Arc<[AtomicU32]>;

/// Where the sums of all vports are.
const ALL: usize = NO_VPORT as usize + 1;

/// The producer's end of a ring.
struct HandoffTx {
    ring: Producer<HandoffPacket>,
    /// The packets of this burst, which the consumer does not see yet. The ring has room for them.
    staged: Vec<HandoffPacket>,
    /// For each vport, and for all, work put in and, as last read, taken out. No packet is less work than its place, so that
    /// work that has room has a place.
    given: Vec<u32>,
    seen: Vec<u32>,
    taken: Taken,
    notifier: Arc<Notifier>,
}

impl HandoffTx {
    /// How much work of a vport is in the ring, as far as is known.
    #[inline]
    fn held(&self, vport: usize) -> u32 {
        self.given[vport].wrapping_sub(self.seen[vport])
    }

    /// Whether a vport may put `work` more into the ring.
    #[inline]
    fn has_room(&mut self, charged_vport: u16, work: u32) -> bool {
        let (vport, capacity) = (usize::from(charged_vport), self.ring.buffer().capacity() as u32);
        if self.held(vport) + self.held(ALL) + work <= capacity {
            return true;
        }
        self.look(vport);
        self.held(vport) + self.held(ALL) + work <= capacity
    }

    /// Looks what was taken out of the ring.
    fn look(&mut self, vport: usize) {
        // Whoever sees that packets were taken sees that their places are free, too.
        self.seen[ALL] = self.taken[ALL].load(Ordering::Acquire);
        self.seen[vport] = self.taken[vport].load(Ordering::Relaxed);
    }

    #[inline]
    fn push(&mut self, handed: HandoffPacket) -> Result<(), Packet> {
        if !self.has_room(handed.charged_vport, handed.work.into()) {
            return Err(handed.packet);
        }
        for n in [usize::from(handed.charged_vport), ALL] {
            self.given[n] = self.given[n].wrapping_add(handed.work.into());
        }
        self.staged.push(handed);
        Ok(())
    }

    /// Publishes the packets of a burst, and wakes the consumer.
    #[inline]
    fn publish(&mut self) {
        let n = self.staged.len();
        if n == 0 {
            return;
        }
        // There is room for what is staged.
        if let Ok(chunk) = self.ring.write_chunk_uninit(n) {
            chunk.fill_from_iter(self.staged.drain(..));
        }
        // A worker that cannot be woken looks ten times a second.
        let _ = self.notifier.notify();
    }
}

/// The consumer's end of a ring.
struct HandoffRx {
    ring: Consumer<HandoffPacket>,
    taken: Taken,
    /// Work that was done beyond the last turns.
    debt: u32,
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
    let (vports, capacity) = (ALL + 1, ring_capacity(notifiers.len()));
    for from in 0..all.len() {
        for (to, notifier) in notifiers.iter().enumerate() {
            if from == to {
                all[from].tx.push(None);
                continue;
            }
            let (producer, consumer) = RingBuffer::new(capacity);
            let taken: Taken = (0..vports).map(|_| AtomicU32::new(0)).collect();
            let (given, seen) = (vec![0; vports], vec![0; vports]);
            all[to].rx.push(HandoffRx { ring: consumer, taken: Arc::clone(&taken), debt: 0 });
            let (notifier, staged) = (Arc::clone(notifier), Vec::with_capacity(BURST));
            all[from].tx.push(Some(HandoffTx { ring: producer, staged, given, seen, taken, notifier }));
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

    /// Whether what a vport sends finds room in all rings, and leaves others as many buffers, of `free`, as it has in them.
    #[inline]
    pub(super) fn has_room(&mut self, vport: u16, free: usize) -> bool {
        let (charged, may_hold) = (vport.min(NO_VPORT), free.max(ROOM as usize));
        let mut held = 0;
        let has_room = self.tx.iter_mut().flatten().all(|tx| {
            let has_room = tx.has_room(charged, ROOM);
            held += tx.held(charged.into()) as usize;
            has_room
        });
        has_room && (held <= may_hold || self.has_share(charged, free))
    }

    /// Whether a vport has no more in all rings than there are buffers free.
    pub(super) fn has_share(&mut self, vport: u16, free: usize) -> bool {
        let charged = usize::from(vport.min(NO_VPORT));
        let held = self.tx.iter_mut().flatten().map(|tx| {
            tx.look(charged);
            tx.held(charged) as usize
        });
        held.sum::<usize>() <= free.max(ROOM as usize)
    }

    /// Hands a packet to a worker, which sees it after [`publish`](Self::publish). Returns it if there is no room.
    #[inline]
    pub(super) fn push(
        &mut self,
        worker: u8,
        packet: Packet,
        to: Option<Port>,
        charged_vport: u16,
    ) -> Result<(), Packet> {
        match self.tx.get_mut(usize::from(worker)).and_then(Option::as_mut) {
            Some(tx) => {
                let (work, charged_vport) = (work::of_packet(&packet) as u16, charged_vport.min(NO_VPORT));
                tx.push(HandoffPacket { packet, to, charged_vport, work })
            }
            None => Err(packet),
        }
    }

    /// How many other workers hand packets to this one.
    pub(super) fn producers(&self) -> usize {
        self.rx.len()
    }

    /// Takes the next packets of a producer: a turn's work, less what the last turns did beyond theirs, and at most a burst.
    /// `true`: there was a packet, or it had no turn.
    #[inline]
    pub(super) fn pop_turn(&mut self, producer: usize, into: &mut Vec<HandoffPacket>) -> bool {
        let Some(rx) = self.rx.get_mut(producer) else { return false };
        if rx.debt >= TURN {
            rx.debt -= TURN;
            return true;
        }
        let budget = TURN - std::mem::take(&mut rx.debt);
        let waiting = rx.ring.slots().min(BURST);
        if waiting == 0 {
            return false;
        }
        let Ok(chunk) = rx.ring.read_chunk(waiting) else { return false };
        // The other core has the entries, too.
        let (front, back) = chunk.as_slices();
        front.iter().chain(back).for_each(prefetch);
        let (first, mut work) = (into.len(), 0);
        for handed in chunk {
            work += u32::from(handed.work);
            into.push(handed);
            if work >= budget {
                break;
            }
        }
        // This worker is the only writer.
        let add = |n: usize, work: u32, order| {
            rx.taken[n].store(rx.taken[n].load(Ordering::Relaxed).wrapping_add(work), order);
        };
        for handed in &into[first..] {
            add(handed.charged_vport.into(), handed.work.into(), Ordering::Relaxed);
        }
        add(ALL, work, Ordering::Release);
        rx.debt = work.saturating_sub(budget);
        true
    }

    /// Charges a producer's next turns with work that delivery took.
    pub(super) fn charge(&mut self, producer: usize, work: u32) {
        if let Some(rx) = self.rx.get_mut(producer) {
            rx.debt = rx.debt.saturating_add(work);
        }
    }

    /// Whether all rings to this worker are empty.
    pub(super) fn is_empty(&self) -> bool {
        self.rx.iter().all(|rx| rx.ring.is_empty())
    }

    /// Publishes the packets of a burst, and wakes the workers that get them.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.tx.iter_mut().flatten().for_each(HandoffTx::publish);
    }
}

#[cfg(test)]
mod tests;
