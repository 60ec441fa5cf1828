//! A thread of the data path: polls its ports while there is work, and sleeps when there is none.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use culvert_flow::Port;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bell::Bell;
use super::events::Reporter;
use super::forwarder::Forwarder;

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
    wake: Arc<Bell>,
    events: Reporter,
    base: Instant,
    looked: u32,
    links: [bool; Port::UPLINKS as usize],
}

impl Worker {
    pub(super) fn new(
        forwarder: Forwarder,
        jobs: Receiver<Job>,
        wake: Arc<Bell>,
        events: Reporter,
        base: Instant,
    ) -> Self {
        Worker { forwarder, jobs, wake, events, base, looked: 0, links: [false; Port::UPLINKS as usize] }
    }

    /// Runs until nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        let (mut idle, mut begin) = (0, self.base.elapsed());
        loop {
            self.forwarder.now = begin.as_millis() as u32;
            let Some(told) = self.told() else { break };
            self.look();
            let worked = self.round() || told;
            let since = std::mem::replace(&mut begin, self.base.elapsed());
            if worked {
                self.forwarder.busy += begin.saturating_sub(since);
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < PATIENCE {
                std::hint::spin_loop();
            } else {
                idle = 0;
                self.sleep();
                begin = self.base.elapsed();
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

    /// One burst from each other worker and from each port. `true`: there was something.
    fn round(&mut self) -> bool {
        let mut any = false;
        if !self.forwarder.crossing.is_alone() {
            self.forwarder.pool.take_back();
            any = self.forwarder.take_passed();
        }
        for n in 0..self.forwarder.slots.len() {
            any |= self.forwarder.serve(n);
        }
        any
    }

    /// Looks at links, and at ports that want to be opened again.
    fn look(&mut self) {
        let now = self.forwarder.now;
        if !std::mem::take(&mut self.forwarder.moved) && now.wrapping_sub(self.looked) < LOOK {
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
            self.events.links(links);
        }
    }

    fn sleep(&mut self) {
        let f = &mut self.forwarder;
        let mut armed = true;
        let mut heard = Vec::with_capacity(f.slots.len());
        for n in 0..f.slots.len() {
            let at = f.slots[n].at;
            // Nobody says when there is room in another worker's ring again. There soon is.
            armed &= f.is_heard(at) || f.exceptions.is_used_up(at);
            if f.is_heard(at) {
                heard.push(n);
                armed &= f.slots[n].port().is_none_or(|port| port.arm());
            }
        }
        if !armed {
            return;
        }
        self.wake.sleeping();
        // What was told or passed before the bell could hear it.
        if !f.crossing.is_empty() {
            return self.wake.awake();
        }
        match self.jobs.try_recv() {
            Err(TryRecvError::Empty) => {}
            Ok(job) => {
                job(f);
                return self.wake.awake();
            }
            Err(TryRecvError::Disconnected) => return self.wake.awake(),
        }
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        let mut heard = heard.into_iter().peekable();
        for (n, slot) in f.slots.iter_mut().enumerate() {
            if heard.next_if_eq(&n).is_some()
                && let Some(port) = slot.port()
            {
                let fd: BorrowedFd<'_> = port.fd();
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let limit = Duration::from_millis(u64::from(LOOK));
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
        // An interrupted sleep is a short one.
        let _ = poll(&mut fds, Some(&limit));
        self.wake.awake();
    }
}
