//! One vport: the queue of the NIC and the port of the machine, and what passes between them.

use std::io;
use std::sync::Arc;

use culvert_flow::Port;
use culvert_packet::{Reason, VportId};

use crate::switch::packet::{Packet, Pool};
use crate::switch::port::{Sent, SwitchPort};
use crate::switch::ports::NicQueue;
use crate::switch::slot::{Lost, Opener, Slot};
use crate::switch::{BURST, steps};
use crate::target::OffloadTarget;

/// Milliseconds between tries to set a VMQ up.
const RETRY: u32 = 1000;
/// Drops that are told at a time; the firmware takes no more.
const MOST_DROPS: u64 = 1 << 16;

/// Both sides of a vport.
pub(super) struct Pair {
    pub(super) vport: VportId,
    vmq: u16,
    nic: Arc<dyn OffloadTarget>,
    queue: Option<NicQueue>,
    next_try: u32,
    pub(super) machine: Slot,
    /// Empty between two rounds.
    burst: Vec<Packet>,
    /// Frames that ended here, which the NIC does not know of yet: each reason once.
    lost: Lost,
    /// What a flush has lost: empty between two rounds.
    fresh: Lost,
}

impl Pair {
    pub(super) fn new(
        nic: &Arc<dyn OffloadTarget>,
        vport: VportId,
        vmq: u16,
        open: Opener,
        now: u32,
    ) -> Self {
        let at = Port::Vport(vport);
        let mut pair = Pair {
            vport,
            vmq,
            nic: Arc::clone(nic),
            queue: None,
            next_try: now,
            machine: Slot::new(at, steps::name(at), open, now),
            burst: Vec::with_capacity(BURST),
            lost: Vec::new(),
            fresh: Vec::new(),
        };
        pair.look(now);
        pair
    }

    /// Looks after links and what wants to be opened again, and counts what was lost on the way in.
    pub(super) fn look(&mut self, now: u32) {
        self.machine.revive(now);
        // Milliseconds wrap.
        if self.queue.is_none() && now.wrapping_sub(self.next_try) < u32::MAX / 2 {
            self.next_try = now.wrapping_add(RETRY);
            match NicQueue::open(&self.nic, self.vport, self.vmq) {
                Ok(queue) => self.queue = Some(queue),
                Err(error) => {
                    tracing::warn!(vmq = self.vmq, %error, "cannot be set up; trying again");
                }
            }
        }
        let lost = self.machine.lost();
        self.count(Reason::RingFull, lost);
        let unfit = self.queue.as_mut().map_or(0, SwitchPort::lost);
        self.count(Reason::TooLong, unfit);
        self.report();
    }

    /// One burst in each direction. `true`: there was something.
    pub(super) fn round(&mut self, pool: &mut Pool, now: u32) -> bool {
        let Some(queue) = &mut self.queue else {
            // The port's other side may still want to be answered.
            self.machine.receive(pool, &mut self.burst, 0, now);
            return false;
        };
        let done = to_machine(queue, &mut self.machine, pool, now, &mut self.fresh).and_then(|came| {
            let (machine, burst) = (&mut self.machine, &mut self.burst);
            let went = from_machine(queue, machine, pool, burst, now, &mut self.fresh)?;
            Ok(came || went)
        });
        while let Some((reason, count)) = self.fresh.pop() {
            self.count(reason, count);
        }
        self.report();
        done.unwrap_or_else(|error| {
            tracing::warn!(vmq = self.vmq, %error, "queue broken; setting it up anew");
            self.close_queue(pool);
            self.next_try = now.wrapping_add(RETRY);
            false
        })
    }

    /// Both sides: the queue, while there is one, and the port, while it is open.
    pub(super) fn ends(&mut self) -> (Option<&mut NicQueue>, Option<&mut dyn SwitchPort>) {
        (self.queue.as_mut(), self.machine.port())
    }

    fn count(&mut self, reason: Reason, count: u64) {
        if count == 0 {
            return;
        }
        match self.lost.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, lost)) => *lost += count,
            None => self.lost.push((reason, count)),
        }
    }

    /// Tells the NIC what was lost, whose counters are the vport's. It waits while the firmware is away.
    fn report(&mut self) {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.lost.is_empty()) else { return };
        for (reason, count) in &mut self.lost {
            let some = (*count).min(MOST_DROPS);
            if queue.count(*reason, some as u32) {
                *count -= some;
            }
        }
        self.lost.retain(|(_, count)| *count > 0);
        // A NIC that is lost says so by its events.
        let _ = self.nic.show_offered();
    }

    fn close_queue(&mut self, pool: &mut Pool) {
        let waited = self.queue.as_mut().map_or(0, |queue| queue.give_up(pool));
        // Closed before it is opened again: the board has one queue of this number.
        self.queue = None;
        self.count(Reason::QueueStopped, waited);
    }

    /// The vport is given up. What is in its queue by now is for nobody.
    pub(super) fn end(mut self, pool: &mut Pool) {
        self.leave(pool);
        self.machine.retire();
    }

    /// Counts what is under way in here: nobody carries it on.
    pub(super) fn leave(&mut self, pool: &mut Pool) {
        let mut rest = 0;
        if let Some(queue) = &mut self.queue {
            while queue.receive(pool, &mut self.burst, BURST).is_ok() && !self.burst.is_empty() {
                rest += self.burst.len() as u64;
                self.burst.drain(..).for_each(|packet| pool.give(packet));
            }
            rest += queue.give_up(pool);
        }
        self.burst.drain(..).for_each(|packet| pool.give(packet));
        self.count(Reason::QueueStopped, rest);
        self.report();
    }
}

/// Frames that the NIC has for the machine. One whose ring is full, or who is not there, does not hold the NIC up.
fn to_machine(
    queue: &mut NicQueue,
    machine: &mut Slot,
    pool: &mut Pool,
    now: u32,
    lost: &mut Lost,
) -> io::Result<bool> {
    let result = queue.receive(pool, &mut machine.out, BURST);
    let any = !machine.out.is_empty();
    if any {
        machine.flush(pool, now, lost);
    }
    result.map(|()| any)
}

/// Frames of the machine. Its ring is not read before the NIC has taken all that was read before, and then no more than
/// can wait: so that nothing is lost here but what the NIC takes from nobody.
fn from_machine(
    queue: &mut NicQueue,
    machine: &mut Slot,
    pool: &mut Pool,
    burst: &mut Vec<Packet>,
    now: u32,
    lost: &mut Lost,
) -> io::Result<bool> {
    let rest = queue.go_on(pool)?;
    let large = pool.free() - pool.common();
    let most = if queue.is_held_up() { 0 } else { BURST.min(large).min(pool.common()) };
    machine.receive(pool, burst, most, now);
    let any = !burst.is_empty();
    machine.counters.in_packets += burst.len() as u64;
    let sent = if any { queue.send(pool, burst)? } else { Sent::default() };
    lost.push((Reason::TooLong, rest.refused + sent.refused));
    lost.push((Reason::RingFull, sent.full));
    Ok(any || rest.packets > 0)
}
