//! The thread of the data path: polls its ports while there is work, and sleeps when there is none.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use culvert_flow::Port;
use culvert_nic::{Event, Interrupt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::burst::{BURST, Verdicts};
use super::forwarder::Forwarder;
use super::packet::Packet;

/// What the thread is told to do, between bursts.
pub(super) type Job = Box<dyn FnOnce(&mut Forwarder) + Send>;

/// Jobs between two rounds over the ports.
const JOBS: usize = 64;
/// Rounds without work after which the thread sleeps.
const PATIENCE: u32 = 64;
/// Milliseconds between looks at links and broken ports.
const LOOK: u32 = 100;

/// The thread's state.
pub(super) struct Worker {
    forwarder: Forwarder,
    jobs: Receiver<Job>,
    wake: Interrupt,
    events: super::events::Reporter,
    verdicts: Box<Verdicts>,
    burst: Vec<Packet>,
    lens: [u32; BURST],
    base: Instant,
    looked: u32,
    links: [bool; Port::UPLINKS as usize],
}

impl Worker {
    pub(super) fn new(
        forwarder: Forwarder,
        jobs: Receiver<Job>,
        wake: Interrupt,
        events: super::events::Reporter,
    ) -> Self {
        Worker {
            forwarder,
            jobs,
            wake,
            events,
            verdicts: Box::default(),
            burst: Vec::with_capacity(BURST),
            lens: [0; BURST],
            base: Instant::now(),
            looked: 0,
            links: [false; Port::UPLINKS as usize],
        }
    }

    /// Runs until nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        let mut idle = 0;
        loop {
            self.forwarder.now = self.base.elapsed().as_millis() as u32;
            let Some(told) = self.told() else { break };
            self.look(told);
            if self.round() || told {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < PATIENCE {
                std::hint::spin_loop();
            } else {
                idle = 0;
                self.sleep();
            }
        }
        self.forwarder.flush();
    }

    /// Does what it was told. `None`: the end.
    fn told(&mut self) -> Option<bool> {
        for n in 0..JOBS {
            match self.jobs.try_recv() {
                Ok(job) => job(&mut self.forwarder),
                Err(TryRecvError::Empty) => return Some(n > 0),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        Some(true)
    }

    /// One burst from each port. `true`: there was something.
    fn round(&mut self) -> bool {
        let mut any = false;
        for n in 0..self.forwarder.slots.len() {
            any |= self.take(n);
        }
        any
    }

    #[inline]
    fn take(&mut self, n: usize) -> bool {
        let f = &mut self.forwarder;
        let now = f.now;
        let Some(slot) = f.slots.get_mut(n) else { return false };
        let at = slot.at;
        if let Port::Vport(id) = at
            && f.exceptions.is_used_up(id)
        {
            return false;
        }
        slot.receive(&mut f.pool, &mut self.burst, BURST, now);
        if self.burst.is_empty() {
            return false;
        }
        let mut bytes = 0;
        for (packet, len) in self.burst.iter_mut().zip(&mut self.lens) {
            packet.input = at;
            *len = packet.bytes().len() as u32;
            bytes += u64::from(*len);
        }
        slot.counters.in_packets += self.burst.len() as u64;
        slot.counters.in_bytes += bytes;
        let verdicts = self.verdicts.of(&mut f.dp, &mut self.burst, now);
        for ((packet, verdict), len) in self.burst.drain(..).zip(verdicts).zip(self.lens) {
            f.settle(packet, *verdict, len as usize);
        }
        f.flush();
        true
    }

    /// Looks at links, and at ports that want to be opened again.
    fn look(&mut self, now_please: bool) {
        let now = self.forwarder.now;
        if !now_please && now.wrapping_sub(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        let mut links = [false; Port::UPLINKS as usize];
        for slot in &mut self.forwarder.slots {
            slot.revive(now);
            if let Port::Uplink(n) = slot.at {
                links[usize::from(n)] = slot.link;
            }
        }
        self.forwarder.count_lost();
        if links != self.links {
            self.links = links;
            self.events.report(Event::Link(links));
        }
    }

    fn sleep(&mut self) {
        let f = &mut self.forwarder;
        let mut armed = true;
        for slot in &mut f.slots {
            let heard = !matches!(slot.at, Port::Vport(id) if f.exceptions.is_used_up(id));
            if heard && let Some(port) = slot.port() {
                armed &= port.arm();
            }
        }
        if !armed {
            return;
        }
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        for slot in &mut f.slots {
            let heard = !matches!(slot.at, Port::Vport(id) if f.exceptions.is_used_up(id));
            if heard && let Some(port) = slot.port() {
                let fd: BorrowedFd<'_> = port.fd();
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let limit = Duration::from_millis(u64::from(LOOK));
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
        // An interrupted sleep is a short one.
        let _ = poll(&mut fds, Some(&limit));
        // An event that cannot be cleared costs one more round.
        let _ = self.wake.try_clear();
    }
}
