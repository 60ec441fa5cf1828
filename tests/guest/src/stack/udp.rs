//! `Echo` and `Probe`: datagrams at a fixed pace, and how long their answers failed to come.

use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};

use super::activity::{Activity, Context, Next, fail, tell};
use crate::{Event, ProbeReport};

/// How long after the last datagram answers are waited for.
const GRACE: Duration = Duration::from_millis(500);
const MAGIC: &[u8; 8] = b"culvprob";
/// Bytes of a probe's datagram: [`MAGIC`] and its number.
const DATAGRAM: usize = 16;
/// Most datagrams that a probe's socket holds; of longer probes, a guest that stands still for minutes would lose some.
const MOST: usize = 1 << 14;
/// Datagrams that the echo's socket holds: those of several probes while the guest stands still for ten seconds.
const ECHO: usize = 4096;

/// A socket that holds so many datagrams of `bytes` each way. smoltcp drops the next one without a word, and a probe would
/// take it for lost by the network. Datagrams wait here while the guest's thread does not run, and then come all at once.
fn socket(packets: usize, bytes: usize) -> Socket<'static> {
    let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; packets], vec![0; packets * bytes]);
    Socket::new(buffer(), buffer())
}

pub(super) struct Echo {
    port: u16,
    reply: Sender<Event>,
    socket: Option<SocketHandle>,
}

impl Echo {
    pub(super) fn new(port: u16, reply: Sender<Event>) -> Self {
        Self { port, reply, socket: None }
    }
}

impl Activity for Echo {
    fn turn(&mut self, cx: &mut Context<'_>) -> Next {
        let Some(handle) = self.socket else {
            let mut socket = socket(ECHO, 256);
            if let Err(e) = socket.bind(self.port) {
                return fail(&self.reply, format!("port {}: {e}", self.port));
            }
            self.socket = Some(cx.sockets.add(socket));
            tell(&self.reply, Event::Listening { port: self.port });
            tell(&self.reply, Event::Done);
            return Next::At(None);
        };
        let socket = cx.sockets.get_mut::<Socket<'_>>(handle);
        while socket.can_recv() && socket.can_send() {
            let Ok((data, from)) = socket.recv() else { break };
            let data = data.to_vec();
            // An answer without room is a lost datagram, as UDP has it.
            let _ = socket.send_slice(&data, from);
            cx.moved = true;
        }
        Next::At(None)
    }
}

pub(super) struct Probe {
    target: (IpAddr, u16),
    own_port: u16,
    interval: Duration,
    duration: Duration,
    reply: Sender<Event>,
    socket: Option<SocketHandle>,
    /// When it began, and when the last answer came.
    times: Option<(Instant, Instant)>,
    answered: Vec<bool>,
    highest: Option<usize>,
    reordered: u64,
    longest: Duration,
}

impl Probe {
    pub(super) fn new(
        target: (IpAddr, u16),
        own_port: u16,
        [interval, duration]: [Duration; 2],
        reply: Sender<Event>,
    ) -> Self {
        Self {
            target,
            own_port,
            interval,
            duration,
            reply,
            socket: None,
            times: None,
            answered: Vec::new(),
            highest: None,
            reordered: 0,
            longest: Duration::ZERO,
        }
    }

    fn note(&mut self, number: usize) {
        let Some(answered) = self.answered.get_mut(number) else { return };
        if std::mem::replace(answered, true) {
            return;
        }
        if self.highest.is_some_and(|highest| number < highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(number));
    }

    fn report(&self) -> ProbeReport {
        let outage = self.longest.saturating_sub(self.interval).as_millis() as u64;
        ProbeReport {
            dst: self.target.0,
            sent: self.answered.len() as u64,
            received: self.answered.iter().filter(|a| **a).count() as u64,
            reordered: self.reordered,
            longest_outage_ms: outage,
        }
    }
}

impl Activity for Probe {
    fn turn(&mut self, cx: &mut Context<'_>) -> Next {
        let handle = match self.socket {
            Some(handle) => handle,
            None => {
                let all = self.duration.as_nanos().div_ceil(self.interval.as_nanos().max(1));
                let mut socket = socket(usize::try_from(all).unwrap_or(MOST).clamp(1, MOST), DATAGRAM);
                if let Err(e) = socket.bind(self.own_port) {
                    return fail(&self.reply, format!("port {}: {e}", self.own_port));
                }
                *self.socket.insert(cx.sockets.add(socket))
            }
        };
        let socket = cx.sockets.get_mut::<Socket<'_>>(handle);
        let (began, mut last) = *self.times.get_or_insert((cx.now, cx.now));
        while let Ok((data, from)) = socket.recv() {
            let number =
                data.strip_prefix(MAGIC).and_then(|n| n.first_chunk()).map(|n| u64::from_be_bytes(*n));
            if let Some(number) = number.and_then(|n| usize::try_from(n).ok())
                && IpAddr::from(from.endpoint.addr) == self.target.0
            {
                self.longest = self.longest.max(cx.now - last);
                last = cx.now;
                self.note(number);
            }
        }
        self.times = Some((began, last));
        let end = began + self.duration;
        // By the clock: where a turn comes late, the datagrams that were due go together.
        let mut due = began + self.interval * self.answered.len() as u32;
        while due <= cx.now && due < end {
            let number = (self.answered.len() as u64).to_be_bytes();
            let _ = socket.send_slice(&[&MAGIC[..], &number].concat(), self.target);
            self.answered.push(false);
            cx.moved = true;
            due += self.interval;
        }
        if due < end {
            return Next::At(Some(due));
        }
        let all = self.answered.iter().all(|a| *a);
        if !all && cx.now < end + GRACE {
            return Next::At(Some(end + GRACE));
        }
        if !all {
            self.longest = self.longest.max(end.saturating_duration_since(last));
        }
        cx.sockets.remove(handle);
        tell(&self.reply, Event::Probe(self.report()));
        Next::Over
    }
}
