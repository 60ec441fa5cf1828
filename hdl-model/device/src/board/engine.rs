//! The queue engine: one thread that moves frames and descriptors in bursts.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use culvert_abi::command::Op;
use culvert_abi::pf::OffloadBits;
use culvert_abi::regs::{self, QUEUE_COUNT};
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM, ctrl};
use culvert_packet::{Reason, parse_outer, verify_udp};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::pf_ring::{FromHost, ToHost};
use super::registers::{Queue, State};
use super::share::Shares;
use super::supervisor::Supervisor;
use crate::function::PfPort;
use crate::soc::Soc;
use crate::virtio::{Checksum, NetDevice};
use crate::wire::{Capture, Received, Wire};

/// Frames taken from one port before the next one has its turn.
pub(super) const BURST: usize = 32;
/// Room in the ring to the firmware that only the host's commands may use, so that verdicts always get through.
const FOR_HOST: u32 = 256;
/// Free packet buffers that only the host may use.
const BUFFERS_FOR_HOST: usize = 512;
/// Turns without work before the engine sleeps: a few microseconds, for the processors have others to serve.
const SPIN: u32 = 50;
/// Time between two looks at what announces nothing: carriers, the firmware's heartbeat, its log.
const TICK: Duration = Duration::from_millis(100);

/// A MAC port.
pub struct Uplink {
    /// The medium.
    pub wire: Box<dyn Wire>,
    /// Where its packets are written.
    pub capture: Option<Capture>,
}

/// The engine.
pub struct Engine {
    pub(super) soc: Soc,
    pub(super) state: Arc<State>,
    pub(super) port: Arc<PfPort>,
    pub(super) uplinks: Vec<Uplink>,
    pub(super) vfs: Vec<Arc<NetDevice>>,
    /// The PF queues as they were last set up.
    pub(super) queues: [Queue; QUEUE_COUNT],
    pub(super) from_host: Option<FromHost>,
    pub(super) to_host: [Option<ToHost>; QUEUE_COUNT],
    pub(super) shares: Shares,
    pub(super) supervisor: Supervisor,
    /// Descriptors to the firmware that had no room in the ring.
    pub(super) delayed: VecDeque<Descriptor>,
    pub(super) mail_pending: bool,
    pub(super) started: Instant,
    /// The driver has said START to this firmware, or to the one before it.
    pub(super) serving: bool,
    next_tick: Instant,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Engine {
    /// An engine with its SoC switched off.
    pub fn new(
        soc: Soc,
        state: Arc<State>,
        port: Arc<PfPort>,
        uplinks: Vec<Uplink>,
        stop: Arc<std::sync::atomic::AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        Engine {
            soc,
            state,
            port,
            uplinks,
            vfs: Vec::new(),
            queues: [Queue::default(); QUEUE_COUNT],
            from_host: None,
            to_host: std::array::from_fn(|_| None),
            shares: Shares::new(),
            supervisor: Supervisor::new(),
            delayed: VecDeque::new(),
            mail_pending: false,
            started: now,
            serving: false,
            next_tick: now,
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
        for uplink in &mut self.uplinks {
            if let Some(capture) = &mut uplink.capture {
                capture.flush();
            }
        }
    }

    /// One turn around all ports. Returns whether there was anything to do.
    fn turn(&mut self) -> bool {
        self.take_changes();
        let mut busy = self.serve_firmware();
        if busy {
            // Before what the firmware has sent leaves: a frame that is seen is counted.
            self.read_counters();
        }
        busy |= self.restore();
        busy |= self.commands();
        if self.may_serve() {
            busy |= self.take_from_vfs();
            busy |= self.take_from_wires();
        }
        self.soc.publish();
        self.flush();
        if Instant::now() >= self.next_tick {
            self.next_tick = Instant::now() + TICK;
            self.tick();
        }
        busy
    }

    pub(super) fn now(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }

    /// What the driver has changed in the registers.
    fn take_changes(&mut self) {
        if let Some(vfs) = self.state.changed_vfs() {
            self.vfs = vfs;
            self.shares.clear();
        }
        if let Some(queues) = self.state.changed_queues() {
            self.set_up_queues(&queues);
        }
        for request in self.state.take_requests() {
            self.carry_out(request);
        }
        if !self.mail_pending
            && let Some(request) = self.state.take_mail()
        {
            self.supervisor.shadow.mail(&request);
            self.soc.send_mail(&request);
            self.mail_pending = true;
            self.serving |= request[0] == regs::mailbox::START;
        }
        if self.mail_pending
            && let Some(reply) = self.soc.mail_reply()
        {
            self.mail_pending = false;
            self.state.answer_mail(reply);
            self.port.interrupt(culvert_abi::pci::VECTOR_MAILBOX);
        }
    }

    fn set_up_queues(&mut self, queues: &[Queue; QUEUE_COUNT]) {
        for (n, queue) in queues.iter().enumerate() {
            self.set_up_queue(n, queue);
        }
    }

    /// Takes frames from the VFs' guests.
    fn take_from_vfs(&mut self) -> bool {
        let mut busy = false;
        for n in 0..self.vfs.len() {
            let vf = Arc::clone(&self.vfs[n]);
            vf.service_control();
            let share = self.state.share(n);
            for _ in 0..BURST {
                if self.shares.used(n) >= share || !self.has_room() || !vf.has_tx() {
                    break;
                }
                let Some(buffer) = self.soc.owners().take() else { break };
                let port = BoardPort::Vf(n as u8);
                let start = HEADROOM as usize;
                let taken = self.soc.buffer(buffer).and_then(|b| {
                    let frame = vf.tx_pop(&mut b[start..])?;
                    fill_checksum(&mut b[start..start + frame.len], frame.csum);
                    Some(frame.len)
                });
                let Some(len) = taken else {
                    self.soc.owners().free(buffer);
                    break;
                };
                busy = true;
                self.state.counters.frame_in(port, len);
                // The checksum engine has just filled it in, or the guest has.
                let offload = OffloadBits { checksum: OffloadBits::VERIFIED, ..OffloadBits::default() };
                self.hand_over(buffer, len, port, offload);
            }
        }
        busy
    }

    /// Takes frames from the MAC ports. What cannot be taken waits on the medium.
    fn take_from_wires(&mut self) -> bool {
        let mut busy = false;
        for n in 0..self.uplinks.len() {
            let port = BoardPort::Uplink(n as u8);
            for _ in 0..BURST {
                if !self.has_room() {
                    break;
                }
                let Some(buffer) = self.soc.owners().take() else { break };
                let start = HEADROOM as usize;
                let uplink = &mut self.uplinks[n];
                let Some(memory) = self.soc.buffer(buffer) else { break };
                match uplink.wire.receive(&mut memory[start..]) {
                    Received::Frame(len) => {
                        let frame = &memory[start..start + len];
                        if let Some(capture) = &mut uplink.capture {
                            capture.frame(&[], frame);
                        }
                        let offload = verify(frame);
                        busy = true;
                        self.state.counters.frame_in(port, len);
                        self.hand_over(buffer, len, port, offload);
                    }
                    Received::Bad(reason) => {
                        self.soc.owners().free(buffer);
                        self.state.counters.drop(port, reason, 1);
                        busy = true;
                    }
                    Received::Nothing => {
                        self.soc.owners().free(buffer);
                        break;
                    }
                }
            }
        }
        busy
    }

    /// Whether there is room for a frame that does not come from the host.
    fn has_room(&mut self) -> bool {
        self.soc.room() > FOR_HOST
            && self.soc.owners().available() > BUFFERS_FOR_HOST
            && self.delayed.is_empty()
    }

    fn hand_over(&mut self, buffer: u32, len: usize, port: BoardPort, offload: OffloadBits) {
        let descriptor = Descriptor {
            buffer,
            offset: HEADROOM as u16,
            len: len as u16,
            op: Op::Frame as u8,
            port: port.bits(),
            now: self.now(),
            offload,
            ..Descriptor::default()
        };
        self.push(descriptor);
    }

    /// To the firmware, in order, even if there is no room now.
    pub(super) fn push(&mut self, descriptor: Descriptor) {
        if !self.delayed.is_empty() || !self.soc.push(&descriptor) {
            self.delayed.push_back(descriptor);
        }
    }

    fn tick(&mut self) {
        for (n, uplink) in self.uplinks.iter_mut().enumerate() {
            let bit = 1 << n;
            let before = self.state.link.load(Acquire);
            let after = if uplink.wire.link() { before | bit } else { before & !bit };
            if before != after {
                self.state.link.store(after, Release);
                self.state.event(regs::EVENT_LINK);
                self.port.interrupt(culvert_abi::pci::VECTOR_EVENT);
            }
            let lost = uplink.wire.lost();
            if lost > 0 {
                self.state.counters.drop(BoardPort::Uplink(n as u8), Reason::NoBuffer, lost);
            }
            if let Some(capture) = &mut uplink.capture {
                capture.flush();
            }
        }
        for (n, vf) in self.vfs.iter().enumerate() {
            for (reason, count) in vf.take_discards() {
                self.state.counters.drop(BoardPort::Vf(n as u8), reason, count);
            }
            // A fault is no frame of the port: it counts under its reason alone.
            for (reason, count) in vf.take_faults() {
                self.state.counters.drop(BoardPort::None, reason, count);
            }
        }
        self.read_counters();
        self.watch_firmware();
    }

    /// Shows the host what the firmware has counted.
    fn read_counters(&self) {
        self.state.finished.store(self.soc.word64(ctrl::FINISHED), Relaxed);
        self.state.punted.store(self.soc.word64(ctrl::PUNTED), Relaxed);
    }

    /// Announces that it sleeps, looks once more, and sleeps until somebody rings or the next tick is due.
    fn sleep(&mut self) {
        let mut work = !self.soc.may_sleep() || !self.delayed.is_empty();
        for vf in &self.vfs {
            vf.set_polling(false);
        }
        let readable = self.may_serve();
        for (n, vf) in self.vfs.iter().enumerate() {
            work |= readable && self.shares.used(n) < self.state.share(n) && vf.has_tx();
        }
        {
            let view = self.port.memory().view();
            if let Some(queue) = &self.from_host {
                // A fault here shows again, and is treated, at the next turn.
                let _shown_again = queue.set_sleeping(&view, true);
                work |= queue.has_work(&view);
            }
        }
        if !work {
            let timeout = self.next_tick.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.as_nanos().min(999_999_999) as i64 };
            let mut fds = vec![
                PollFd::from_borrowed_fd(self.state.wake.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.soc.bell(), PollFlags::IN),
            ];
            if readable {
                fds.extend(self.uplinks.iter().map(|u| PollFd::from_borrowed_fd(u.wire.fd(), PollFlags::IN)));
            }
            let _interrupted = rustix::event::poll(&mut fds, Some(&timeout));
        }
        self.soc.awake();
        self.state.wake.drain();
        for vf in &self.vfs {
            vf.set_polling(true);
        }
        let view = self.port.memory().view();
        if let Some(queue) = &self.from_host {
            let _shown_again = queue.set_sleeping(&view, false);
        }
    }
}

/// The checksum engine, towards the wire: fills in what the guest has left to it.
fn fill_checksum(frame: &mut [u8], checksum: Checksum) {
    let Checksum::Partial { start, offset } = checksum else { return };
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    if at + 2 > frame.len() || start > frame.len() {
        return;
    }
    let sum = match culvert_packet::checksum::of(&frame[start..]) {
        // A UDP checksum of 0 would say that there is none (RFC 768); its field is six bytes into the header.
        0 if offset == 6 => 0xffff,
        sum => sum,
    };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The checksum engine, from the wire: verifies an outer UDP checksum, if there is one.
fn verify(frame: &[u8]) -> OffloadBits {
    let checksum = match parse_outer(frame) {
        Ok(Some(outer)) if outer.udp_checksum != 0 => {
            if verify_udp(frame, &outer) {
                OffloadBits::VERIFIED
            } else {
                OffloadBits::BAD
            }
        }
        _ => OffloadBits::NONE,
    };
    OffloadBits { checksum, ..OffloadBits::default() }
}
