//! The stack's thread: poll while there is work, then sleep until an interrupt, a command or a deadline.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use culvert_pci::Interrupt;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::activity::{Activity, Context, Next, fail, tell};
use super::config::StackConfig;
use super::neighbour::Neighbours;
use super::nic::Nic;
use super::{ping, tcp, udp};
use crate::hex::{hex, unhex};
use crate::sleep::sleep_on;
use crate::{Command, Error, Event, FrameLog, FramePort, Result};

/// The longest sleep: bounds the delay after a lost wake-up.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The shortest sleep after a round without frames: smoltcp asks for no delay if a socket cannot send yet.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// A request of the handle to the thread.
pub(super) enum Request {
    Command { command: Command, reply: Sender<Event> },
    Logs { reply: Sender<Option<(FrameLog, FrameLog)>> },
}

/// A command that waits for a frame.
struct Watch {
    pattern: Vec<u8>,
    deadline: Instant,
    reply: Sender<Event>,
}

pub(super) struct Runner<P> {
    nic: Nic<P>,
    iface: Interface,
    sockets: SocketSet<'static>,
    requests: Receiver<Request>,
    wake: Interrupt,
    started: Instant,
    activities: Vec<Box<dyn Activity>>,
    watches: Vec<Watch>,
    window: usize,
    next_port: u16,
}

impl<P: FramePort> Runner<P> {
    pub(super) fn new(
        port: P,
        config: &StackConfig,
        requests: Receiver<Request>,
        wake: Interrupt,
    ) -> Result<Self> {
        let address = IpAddress::from(config.ip);
        let longest = if config.ip.is_ipv4() { 32 } else { 128 };
        if config.prefix > longest {
            return Err(Error::Failed(format!("{}/{}: no such prefix", config.ip, config.prefix)));
        }
        let mac = port.mac();
        let neighbours = Neighbours::new(config.ip, config.prefix, config.gateway);
        let mut nic = Nic::new(port, config.log_frames, neighbours);
        let mut own = Config::new(EthernetAddress(mac).into());
        // Different initial sequence numbers and ports for each guest.
        own.random_seed = mac.iter().fold(std::process::id().into(), |seed, b| seed * 257 + u64::from(*b));
        let next_port = 49_152 + (own.random_seed % 8_192) as u16;
        let started = Instant::now();
        let mut iface = Interface::new(own, &mut nic, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|list| {
            // The list holds at least one.
            let _ = list.push(IpCidr::new(address, config.prefix));
        });
        match config.gateway.map(IpAddress::from) {
            Some(IpAddress::Ipv4(gateway)) => iface.routes_mut().add_default_ipv4_route(gateway).map(drop),
            Some(IpAddress::Ipv6(gateway)) => iface.routes_mut().add_default_ipv6_route(gateway).map(drop),
            None => Ok(()),
        }
        .map_err(|e| Error::Failed(format!("default route: {e}")))?;
        Ok(Self {
            nic,
            iface,
            sockets: SocketSet::new(Vec::new()),
            requests,
            wake,
            started,
            activities: Vec::new(),
            watches: Vec::new(),
            window: config.window,
            next_port,
        })
    }

    /// Runs until a quit command, or until the device is lost. Then the channels of running commands close, and `fate` has the
    /// reason.
    pub(super) fn run(mut self, fate: &OnceLock<String>) {
        loop {
            match self.round() {
                Ok(true) => {}
                Ok(false) => return,
                Err(e) => {
                    let _ = fate.set(e.to_string());
                    return;
                }
            }
        }
    }

    /// One round of work and, if there is none, a sleep. Returns false after a quit command.
    fn round(&mut self) -> Result<bool> {
        while let Ok(request) = self.requests.try_recv() {
            if !self.accept(request) {
                return Ok(false);
            }
        }
        let now = Instant::now();
        self.nic.moved = false;
        self.nic.blocked = false;
        self.poll(now);
        let mut moved = self.nic.moved;
        let mut at = None;
        let (again, when) = self.poll_activities(now);
        moved |= again;
        earliest(&mut at, when);
        earliest(&mut at, self.poll_watches(now));
        if again {
            // Send the activities' data in the same burst.
            self.poll(now);
        }
        self.nic.port.flush()?;
        if let Some(e) = self.nic.failed.take() {
            return Err(e);
        }
        if !moved {
            self.sleep(now, at)?;
        }
        Ok(true)
    }

    fn poll(&mut self, now: Instant) {
        let time = smoltcp::time::Instant::from_micros((now - self.started).as_micros() as i64);
        self.iface.poll(time, &mut self.nic, &mut self.sockets);
    }

    fn sleep(&mut self, now: Instant, at: Option<Instant>) -> Result<()> {
        let time = smoltcp::time::Instant::from_micros((now - self.started).as_micros() as i64);
        let stack = self.iface.poll_delay(time, &self.sockets).map(Duration::from);
        let mut limit = stack.unwrap_or(LONGEST_SLEEP).clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
        if let Some(at) = at {
            limit = limit.min(at.saturating_duration_since(now));
        }
        // A full transmit ring also blocks reception: wake up only for room to send.
        if !self.nic.port.arm(self.nic.blocked) || self.nic.blocked {
            let mut fds = self.nic.port.events();
            fds.push(self.wake.as_fd());
            sleep_on(&fds, limit)?;
        }
        self.wake.try_clear()?;
        self.nic.port.disarm()
    }

    fn poll_activities(&mut self, now: Instant) -> (bool, Option<Instant>) {
        let Self { activities, iface, sockets, .. } = self;
        let mut cx = Context { now, iface, sockets, moved: false };
        let mut at = None;
        activities.retain_mut(|activity| match activity.turn(&mut cx) {
            Next::Over => false,
            Next::At(when) => {
                earliest(&mut at, when);
                true
            }
        });
        (cx.moved, at)
    }

    fn poll_watches(&mut self, now: Instant) -> Option<Instant> {
        let seen = std::mem::take(&mut self.nic.seen);
        self.watches.retain(|watch| {
            let contains = |f: &&Vec<u8>| f.windows(watch.pattern.len()).any(|w| w == watch.pattern);
            if let Some(frame) = seen.iter().find(contains) {
                tell(&watch.reply, Event::Frame { hex: hex(frame) });
                return false;
            }
            if now >= watch.deadline {
                fail(&watch.reply, "no such frame arrived in time");
                return false;
            }
            true
        });
        self.nic.watching = !self.watches.is_empty();
        self.watches.iter().map(|w| w.deadline).min()
    }

    /// Starts a command. Returns false for the quit command.
    fn accept(&mut self, request: Request) -> bool {
        let (command, reply) = match request {
            Request::Command { command, reply } => (command, reply),
            Request::Logs { reply } => {
                let _ = reply.send(self.nic.logs.clone());
                return true;
            }
        };
        let now = Instant::now();
        let window = self.window;
        match command {
            Command::Quit => {
                tell(&reply, Event::Done);
                return false;
            }
            Command::Counters => tell(&reply, Event::Counters(self.nic.port.counters())),
            Command::Frame { hex } => tell(&reply, self.send_frame(&hex)),
            Command::FrameLog { path } => tell(&reply, self.save_logs(&path)),
            Command::AwaitFrame { hex, timeout_ms } => match unhex(&hex).filter(|p| !p.is_empty()) {
                Some(pattern) => {
                    let deadline = now + Duration::from_millis(timeout_ms);
                    self.watches.push(Watch { pattern, deadline, reply });
                    self.nic.watching = true;
                }
                None => drop(fail(&reply, "the bytes to wait for are not in hexadecimal")),
            },
            Command::Ping { dst, count, interval_ms, timeout_ms } => {
                let port = self.ephemeral();
                self.activities.push(Box::new(ping::Ping::new(
                    dst,
                    count,
                    [interval_ms, timeout_ms].map(Duration::from_millis),
                    port,
                    reply,
                )));
            }
            Command::Send { dst, port, bytes, seed, timeout_ms } => {
                let (own, deadline) = (self.ephemeral(), now + Duration::from_millis(timeout_ms));
                let target = (dst, port);
                let sending = tcp::Sending::new(target, own, (bytes, seed), window, deadline, reply);
                self.activities.push(Box::new(sending));
            }
            Command::Receive { port, timeout_ms } => {
                let deadline = now + Duration::from_millis(timeout_ms);
                self.activities.push(Box::new(tcp::Receiving::new(port, window, deadline, reply)));
            }
            Command::Probe { dst, port, interval_ms, duration_ms } => {
                let own = self.ephemeral();
                let pace = [interval_ms.max(1), duration_ms].map(Duration::from_millis);
                self.activities.push(Box::new(udp::Probe::new((dst, port), own, pace, reply)));
            }
            Command::Echo { port } => self.activities.push(Box::new(udp::Echo::new(port, reply))),
        }
        true
    }

    /// A port, or ICMP identifier, that was not used recently.
    fn ephemeral(&mut self) -> u16 {
        self.next_port = if self.next_port >= 65_000 { 49_152 } else { self.next_port + 1 };
        self.next_port
    }

    fn send_frame(&mut self, hex: &str) -> Event {
        let Some(frame) = unhex(hex) else {
            return Event::Error { message: "the frame is not in hexadecimal".into() };
        };
        match self.nic.send(&frame, None) {
            Ok(()) => Event::Done,
            Err(e) => Event::Error { message: e.to_string() },
        }
    }

    fn save_logs(&self, path: &str) -> Event {
        let Some((sent, received)) = &self.nic.logs else {
            return Event::Error {
                message: "this guest keeps no frame log: start it with --log-frames".into(),
            };
        };
        let save = |log: &FrameLog, path: String| {
            let file = File::create(&path).map_err(|source| Error::Io { what: path, source })?;
            log.save(BufWriter::new(file))
        };
        match save(sent, format!("{path}.tx")).and_then(|()| save(received, format!("{path}.rx"))) {
            Ok(()) => Event::Done,
            Err(e) => Event::Error { message: e.to_string() },
        }
    }
}

fn earliest(at: &mut Option<Instant>, other: Option<Instant>) {
    *at = [*at, other].into_iter().flatten().min();
}
