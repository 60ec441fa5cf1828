//! The relay's thread: polls all pairs while there is work, and sleeps when there is none.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Order;
use super::pair::Pair;
use crate::switch::bell::Bell;
use crate::switch::packet::Pool;
use crate::switch::port::SwitchPort;
use crate::switch::ports::NicQueue;
use crate::target::OffloadTarget;

/// Rounds without work after which the thread sleeps.
const PATIENCE: u32 = 64;
/// Between looks at links and at what is broken; also the longest sleep.
const LOOK: Duration = Duration::from_millis(100);
/// Between looks whether the NIC has room again: no interrupt tells of that.
const FULL: Duration = Duration::from_micros(50);
/// The same while its firmware is away.
const AWAY: Duration = Duration::from_millis(5);

/// The thread's state.
pub(super) struct Worker {
    nic: Arc<dyn OffloadTarget>,
    pool: Pool,
    pairs: Vec<Pair>,
    orders: Receiver<Order>,
    wake: Arc<Bell>,
    base: Instant,
    looked: u32,
}

impl Worker {
    pub(super) fn new(
        nic: Arc<dyn OffloadTarget>,
        pool: Pool,
        orders: Receiver<Order>,
        wake: Arc<Bell>,
    ) -> Self {
        Worker { nic, pool, pairs: Vec::new(), orders, wake, base: Instant::now(), looked: 0 }
    }

    fn now(&self) -> u32 {
        self.base.elapsed().as_millis() as u32
    }

    /// Runs until nobody can tell it anything any more. Ports stay as the next relay may find them.
    pub(super) fn run(mut self) {
        let mut idle = 0;
        loop {
            let now = self.now();
            let Some(told) = self.told(now) else { break };
            self.look(now);
            let mut any = told;
            for pair in &mut self.pairs {
                any |= pair.round(&mut self.pool, now);
            }
            if any {
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
        self.pairs.iter_mut().for_each(|pair| pair.leave(&mut self.pool));
    }

    /// Does what it was told. `None`: the end.
    fn told(&mut self, now: u32) -> Option<bool> {
        match self.orders.try_recv() {
            Ok(order) => self.obey(order, now),
            Err(TryRecvError::Empty) => return Some(false),
            Err(TryRecvError::Disconnected) => return None,
        }
        Some(true)
    }

    fn obey(&mut self, order: Order, now: u32) {
        // Whoever asked may have gone.
        match order {
            Order::Attach { vport, vmq, open } => {
                self.remove(|pair| pair.vport == vport);
                self.pairs.push(Pair::new(&self.nic, vport, vmq, open, now));
            }
            Order::Detach(vport, done) => {
                self.remove(|pair| pair.vport == vport);
                let _ = done.send(());
            }
            Order::Links(answer) => {
                self.pairs.iter_mut().for_each(|pair| pair.machine.look());
                let links = self.pairs.iter().map(|pair| (pair.vport, pair.machine.link));
                let _ = answer.send(links.collect());
            }
        }
    }

    fn remove(&mut self, gone: impl Fn(&Pair) -> bool) {
        while let Some(n) = self.pairs.iter().position(&gone) {
            self.pairs.swap_remove(n).end(&mut self.pool);
        }
    }

    fn look(&mut self, now: u32) {
        if now.wrapping_sub(self.looked) >= LOOK.as_millis() as u32 {
            self.looked = now;
            self.pairs.iter_mut().for_each(|pair| pair.look(now));
        }
    }

    fn sleep(&mut self) {
        let mut limit = LOOK;
        let mut armed = true;
        for pair in &mut self.pairs {
            // Without the NIC's queue, the machine waits too.
            let (Some(queue), machine) = pair.ends() else { continue };
            armed &= queue.arm();
            if queue.is_held_up() {
                limit = if self.nic.alive() { FULL } else { AWAY };
            } else if let Some(machine) = machine {
                armed &= machine.arm();
            }
        }
        if !armed {
            return;
        }
        self.wake.sleeping();
        // What was told before the bell could hear it.
        match self.orders.try_recv() {
            Err(TryRecvError::Empty) => {}
            Ok(order) => {
                let now = self.now();
                self.obey(order, now);
                return self.wake.awake();
            }
            Err(TryRecvError::Disconnected) => return self.wake.awake(),
        }
        let mut fds = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        for pair in &mut self.pairs {
            let (Some(queue), machine) = pair.ends() else { continue };
            let queue: &NicQueue = queue;
            fds.push(PollFd::from_borrowed_fd(queue.fd(), PollFlags::IN));
            if let Some(machine) = machine.filter(|_| !queue.is_held_up()) {
                let fd: BorrowedFd<'_> = machine.fd();
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
        // An interrupted sleep is a short one.
        let _ = poll(&mut fds, Some(&limit));
        self.wake.awake();
    }
}
