//! A worker: a thread that polls the ports of a forwarder.

use std::time::{Duration, Instant};

use culvert_flow::Port;
use rustix::event::PollFd;

use crate::events::LinkReporter;
use crate::forwarder::Forwarder;
use crate::poll_loop::{HANDOFF_IDLE_ROUNDS, IDLE_ROUNDS, PollLoop, TICK, poll_fd};

/// A job for a worker, done between two bursts.
pub(super) type Job = Box<dyn FnOnce(&mut Forwarder) + Send>;

/// The thread's state.
pub(super) struct Worker {
    forwarder: Forwarder,
    links: LinkReporter,
    /// The start of time, the same for all workers.
    base: Instant,
    /// When the current round began.
    begin: Duration,
    /// When links and broken ports were last looked at.
    ticked: u32,
    /// Links as they were last reported.
    reported: [bool; Port::UPLINKS as usize],
    /// Local ports that are armed for the sleep.
    armed: Vec<usize>,
    /// Rounds without work after which the thread sleeps.
    idle_rounds: u32,
}

impl Worker {
    pub(super) fn new(forwarder: Forwarder, links: LinkReporter, base: Instant) -> Self {
        Worker {
            forwarder,
            links,
            base,
            begin: base.elapsed(),
            ticked: 0,
            reported: [false; Port::UPLINKS as usize],
            armed: Vec::new(),
            idle_rounds: IDLE_ROUNDS,
        }
    }

    /// The worker's forwarder.
    pub(super) fn forwarder(&mut self) -> &mut Forwarder {
        &mut self.forwarder
    }

    /// Sends what is queued when the thread ends.
    pub(super) fn finish(&mut self) {
        self.forwarder.flush();
    }

    /// Polls links, and has broken ports opened, at each tick and when a port was attached, detached or opened.
    fn tick(&mut self) {
        let now = self.forwarder.now;
        if !self.forwarder.out.ports.take_changed() && now.wrapping_sub(self.ticked) < TICK.as_millis() as u32
        {
            return;
        }
        self.ticked = now;
        let mut links = [false; Port::UPLINKS as usize];
        for port in self.forwarder.out.ports.local_mut() {
            port.reopen_if_due(now);
            if let Port::Uplink(n) = port.at() {
                links[usize::from(n)] = port.link();
            }
        }
        self.forwarder.out.count_rx_drops();
        if links != self.reported {
            self.reported = links;
            self.links.report(links);
        }
    }
}

impl PollLoop for Worker {
    type Command = Job;

    fn execute(&mut self, job: Job) {
        job(&mut self.forwarder);
    }

    fn idle_rounds(&self) -> u32 {
        self.idle_rounds
    }

    fn round(&mut self) -> bool {
        self.tick();
        let mut any = false;
        if !self.forwarder.out.handoff.is_alone() {
            self.forwarder.out.pool.take_back();
            // What an owner's full ring had no room for.
            self.forwarder.out.pool.publish_returns();
            any = self.forwarder.poll_handoff();
        }
        let handed = any;
        for n in 0..self.forwarder.out.ports.local().len() {
            any |= self.forwarder.poll_port(n);
        }
        if any {
            self.idle_rounds = if handed { HANDOFF_IDLE_ROUNDS } else { IDLE_ROUNDS };
        }
        any
    }

    fn account(&mut self, worked: bool) {
        let end = self.base.elapsed();
        if worked {
            self.forwarder.busy += end.saturating_sub(self.begin);
        }
        self.begin = end;
        self.forwarder.now = end.as_millis() as u32;
    }

    fn arm(&mut self) -> Option<Duration> {
        let f = &mut self.forwarder;
        self.armed.clear();
        let mut quiet = f.out.handoff.is_empty() && !f.out.ports.is_changed() && f.out.pool.publish_returns();
        for n in 0..f.out.ports.local().len() {
            let at = f.out.ports.local()[n].at();
            if f.may_poll(at) {
                self.armed.push(n);
                quiet &= f.out.ports.local()[n].turn.is_empty();
                quiet &= f.out.ports.local_mut()[n].port().is_none_or(|port| port.arm());
            } else {
                // Nobody notifies this worker when a handoff ring has room again, so that it does not sleep then.
                quiet &= f.upcalls.is_used_up(at);
            }
        }
        quiet.then_some(TICK)
    }

    fn wake_fds<'a>(&'a mut self, fds: &mut Vec<PollFd<'a>>) {
        let mut armed = self.armed.iter().copied().peekable();
        for (n, port) in self.forwarder.out.ports.local_mut().iter_mut().enumerate() {
            if armed.next_if_eq(&n).is_some()
                && let Some(port) = port.port()
            {
                fds.push(poll_fd(port.fd()));
            }
        }
    }
}
