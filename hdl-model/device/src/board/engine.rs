//! The queue engine: one thread that moves frames and descriptors in bursts.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use culvert_abi::pci::VECTOR_EVENT;
use culvert_abi::regs;
use culvert_abi::soc::{BoardPort, ctrl};
use culvert_packet::Reason;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::clock::Ticker;
use super::datapath::{Datapath, Uplink};
use super::registers::State;
use super::supervisor::Supervisor;
use crate::function::PfPort;
use crate::soc::Soc;

/// Turns without work before the engine sleeps: a few microseconds, for the processors have others to serve.
const SPIN: u32 = 50;
/// Period of what is polled: carriers, the firmware's heartbeat, its log.
const TICK: Duration = Duration::from_millis(100);

/// The engine.
pub struct Engine {
    datapath: Datapath,
    supervisor: Supervisor,
    registers: Arc<State>,
    port: Arc<PfPort>,
    ticker: Ticker,
    stop: Arc<AtomicBool>,
}

impl Engine {
    /// An engine with its SoC switched off.
    pub fn new(
        soc: Soc,
        state: Arc<State>,
        port: Arc<PfPort>,
        uplinks: Vec<Uplink>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Engine {
            datapath: Datapath::new(soc, Arc::clone(&state), Arc::clone(&port), uplinks),
            supervisor: Supervisor::new(Arc::clone(&state), Arc::clone(&port)),
            registers: state,
            port,
            ticker: Ticker::new(TICK),
            stop,
        }
    }

    /// Runs until told to stop.
    pub fn run(&mut self) {
        let mut idle = 0;
        while !self.stop.load(Acquire) {
            if self.turn() {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < SPIN {
                std::hint::spin_loop();
            } else {
                self.sleep();
                idle = 0;
            }
        }
        for uplink in &mut self.datapath.uplinks {
            if let Some(capture) = &mut uplink.capture {
                capture.flush();
            }
        }
    }

    /// One turn around all ports. Returns whether there was anything to do.
    fn turn(&mut self) -> bool {
        self.take_changes();
        let mut busy = self.datapath.execute_descriptors();
        if self.supervisor.takes_commands(&self.datapath.link.soc) {
            self.datapath.link.report_lost();
        }
        if busy {
            // Before the firmware's frames leave: a frame that is seen is counted.
            self.read_counters();
        }
        busy |= self.supervisor.restore(&mut self.datapath.link);
        if self.datapath.link.push_delayed() && self.supervisor.takes_commands(&self.datapath.link.soc) {
            busy |= self.datapath.take_commands(self.supervisor.shadow());
        }
        if self.supervisor.forwards(&self.datapath.link.soc) {
            busy |= self.datapath.take_from_vfs();
            busy |= self.datapath.take_from_wires();
        }
        self.datapath.link.soc.publish();
        self.datapath.flush();
        if self.ticker.is_due() {
            self.tick();
        }
        busy
    }

    /// Applies the driver's changes of the registers.
    fn take_changes(&mut self) {
        if let Some(vfs) = self.registers.changed_vfs() {
            self.datapath.set_vfs(vfs);
        }
        if let Some(queues) = self.registers.changed_queues() {
            self.datapath.set_queues(&queues);
        }
        for request in self.registers.take_requests() {
            if self.supervisor.execute(request, &mut self.datapath.link) {
                self.datapath.shares.clear();
            }
        }
        if self.supervisor.exchange_mail(&mut self.datapath.link.soc) {
            self.datapath.host.start_upcalls();
        }
    }

    fn tick(&mut self) {
        for (n, uplink) in self.datapath.uplinks.iter_mut().enumerate() {
            let bit = 1 << n;
            let before = self.registers.link.load(Acquire);
            let after = if uplink.wire.link() { before | bit } else { before & !bit };
            if before != after {
                self.registers.link.store(after, Release);
                self.registers.event(regs::EVENT_LINK);
                self.port.interrupt(VECTOR_EVENT);
            }
            let lost = uplink.wire.lost();
            if lost > 0 {
                self.registers.counters.drop(BoardPort::Uplink(n as u8), Reason::NoBuffer, lost);
            }
            if let Some(capture) = &mut uplink.capture {
                capture.flush();
            }
        }
        for (n, vf) in self.datapath.vfs.iter().enumerate() {
            for (reason, count) in vf.take_discards() {
                self.registers.counters.drop(BoardPort::Vf(n as u8), reason, count);
            }
            // A fault is no frame of the port: it counts under its reason alone.
            for (reason, count) in vf.take_faults() {
                self.registers.counters.drop(BoardPort::None, reason, count);
            }
        }
        self.datapath.settle_queued();
        self.read_counters();
        if self.supervisor.watch(&mut self.datapath.link) {
            self.datapath.shares.clear();
        }
    }

    /// Copies the firmware's counters to the registers.
    fn read_counters(&self) {
        let soc = &self.datapath.link.soc;
        self.registers.finished.store(soc.word64(ctrl::FINISHED), Relaxed);
        self.registers.punted.store(soc.word64(ctrl::PUNTED), Relaxed);
    }

    /// Announces sleep, looks for work once more, and sleeps until a notification or the next tick.
    fn sleep(&mut self) {
        let Datapath { link, host, uplinks, vfs, shares, .. } = &mut self.datapath;
        let mut work = !link.soc.may_sleep() || link.has_delayed();
        for vf in vfs.iter() {
            vf.set_polling(false);
        }
        let forwards = self.supervisor.forwards(&link.soc);
        for (n, vf) in vfs.iter().enumerate() {
            work |= forwards && shares.used(n) < self.registers.share(n) && vf.has_tx();
        }
        work |= host.set_sleeping(true);
        if !work {
            let timeout = self.ticker.remaining();
            let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.as_nanos().min(999_999_999) as i64 };
            let mut fds = vec![
                PollFd::from_borrowed_fd(self.registers.notifier.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(link.soc.doorbell(), PollFlags::IN),
            ];
            if forwards {
                fds.extend(uplinks.iter().map(|u| PollFd::from_borrowed_fd(u.wire.fd(), PollFlags::IN)));
            }
            let _interrupted = rustix::event::poll(&mut fds, Some(&timeout));
        }
        link.soc.awake();
        self.registers.notifier.clear();
        for vf in vfs.iter() {
            vf.set_polling(true);
        }
        host.set_sleeping(false);
    }
}
