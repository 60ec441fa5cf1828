//! Packets that go from one worker to another: in rings, each with one giver and one taker.
//!
//! A ring is shared by vports in fairness. Each may have as many packets in it as are free beside them: one that floods
//! gets half of it, and whoever comes next finds room. What a guest sends is not read before it has room in all rings;
//! what comes from the wire without is dropped for `worker_full`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use culvert_flow::Port;
use rtrb::{Consumer, Producer, RingBuffer};

use super::BURST;
use super::bell::Bell;
use super::homes::{Homes, NOBODY};
use super::packet::Packet;

/// Packets in a ring.
const LENGTH: usize = 4096;
/// Room that a guest needs to be listened to: for what comes back for it from the slow path meanwhile, and a burst.
const ROOM: usize = 1024;
const _: () = assert!(ROOM >= super::exceptions::SHARE as usize + BURST && ROOM < LENGTH / 2);

/// A packet on its way.
pub(super) struct Passed {
    pub(super) packet: Packet,
    /// The port that it leaves by; none: it is yet to go through the core.
    pub(super) to: Option<Port>,
    /// The vport on whose account it is.
    payer: u16,
}

/// For each vport, packets taken out of a ring so far; the taker writes.
type Taken = Arc<[AtomicU32]>;

/// The giver's end.
struct Giver {
    ring: Producer<Passed>,
    /// For each vport, packets given and, at the last look, taken.
    given: Vec<u32>,
    seen: Vec<u32>,
    taken: Taken,
    bell: Arc<Bell>,
    /// Whether the taker is yet to be told.
    news: bool,
}

impl Giver {
    /// Whether a vport may put `n` packets more into the ring.
    #[inline]
    fn has_room(&mut self, payer: u16, n: usize) -> bool {
        let payer = usize::from(payer);
        let held = self.given[payer].wrapping_sub(self.seen[payer]) as usize;
        if held + n <= self.ring.cached_slots() {
            return true;
        }
        self.seen[payer] = self.taken[payer].load(Ordering::Relaxed);
        let held = self.given[payer].wrapping_sub(self.seen[payer]) as usize;
        held + n <= self.ring.slots()
    }

    #[inline]
    fn give(&mut self, passed: Passed) -> Result<(), Packet> {
        let payer = passed.payer;
        if !self.has_room(payer, 1) {
            return Err(passed.packet);
        }
        self.ring.push(passed).map_err(|rtrb::PushError::Full(passed)| passed.packet)?;
        self.given[usize::from(payer)] = self.given[usize::from(payer)].wrapping_add(1);
        self.news = true;
        Ok(())
    }
}

/// The taker's end.
struct Taker {
    ring: Consumer<Passed>,
    taken: Taken,
}

/// A worker's ends of all its rings. One that is alone has none.
#[derive(Default)]
pub(super) struct Crossing {
    pub(super) me: u8,
    pub(super) homes: Homes,
    /// By worker; our own place is empty.
    givers: Vec<Option<Giver>>,
    takers: Vec<Taker>,
}

/// Rings between as many workers as there are bells.
pub(super) fn crossings(bells: &[Arc<Bell>]) -> Vec<Crossing> {
    let mut all: Vec<Crossing> =
        (0..bells.len()).map(|me| Crossing { me: me as u8, ..Crossing::default() }).collect();
    let accounts = usize::from(NOBODY) + 1;
    for from in 0..all.len() {
        for (to, bell) in bells.iter().enumerate() {
            if from == to {
                all[from].givers.push(None);
                continue;
            }
            let (producer, consumer) = RingBuffer::new(LENGTH);
            let taken: Taken = (0..accounts).map(|_| AtomicU32::new(0)).collect();
            let (given, seen) = (vec![0; accounts], vec![0; accounts]);
            all[to].takers.push(Taker { ring: consumer, taken: Arc::clone(&taken) });
            let bell = Arc::clone(bell);
            all[from].givers.push(Some(Giver { ring: producer, given, seen, taken, bell, news: false }));
        }
    }
    all
}

impl Crossing {
    /// Whether there is nobody to give anything to.
    #[inline(always)]
    pub(super) fn is_alone(&self) -> bool {
        self.takers.is_empty()
    }

    /// Whether what a vport sends finds room in all rings.
    #[inline]
    pub(super) fn has_room(&mut self, vport: u16) -> bool {
        let payer = vport.min(NOBODY);
        self.givers.iter_mut().flatten().all(|giver| giver.has_room(payer, ROOM))
    }

    /// Gives a packet to a worker. It comes back if there is no room.
    #[inline]
    pub(super) fn give(
        &mut self,
        worker: u8,
        packet: Packet,
        to: Option<Port>,
        payer: u16,
    ) -> Result<(), Packet> {
        match self.givers.get_mut(usize::from(worker)).and_then(Option::as_mut) {
            Some(giver) => giver.give(Passed { packet, to, payer: payer.min(NOBODY) }),
            None => Err(packet),
        }
    }

    /// How many others there are to take packets from.
    pub(super) fn others(&self) -> usize {
        self.takers.len()
    }

    /// The next packet that came from one of the others.
    #[inline]
    pub(super) fn take(&mut self, from: usize) -> Option<Passed> {
        let taker = self.takers.get_mut(from)?;
        let passed = taker.ring.pop().ok()?;
        let taken = &taker.taken[usize::from(passed.payer)];
        // Nobody else writes it.
        taken.store(taken.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Some(passed)
    }

    /// Whether nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        self.takers.iter().all(|taker| taker.ring.is_empty())
    }

    /// Tells those to whom something was given.
    #[inline]
    pub(super) fn ring(&mut self) {
        for giver in self.givers.iter_mut().flatten() {
            if std::mem::take(&mut giver.news) {
                // A worker that cannot be woken looks ten times a second.
                let _ = giver.bell.ring();
            }
        }
    }
}

#[cfg(test)]
mod tests;
