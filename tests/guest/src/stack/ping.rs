//! `Ping`: ICMP echo requests and the round trips of their answers.

use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp::{Endpoint, PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr};

use super::activity::{Activity, Context, Next, fail, tell};
use crate::{Event, PingReport};

const PAYLOAD: &[u8] = b"culvert guest: thirty-two bytes.";

pub(super) struct Ping {
    dst: IpAddr,
    count: u16,
    interval: Duration,
    timeout: Duration,
    ident: u16,
    reply: Sender<Event>,
    socket: Option<SocketHandle>,
    /// When each request was sent, and its round trip once answered.
    requests: Vec<(Instant, Option<Duration>)>,
}

impl Ping {
    pub(super) fn new(
        dst: IpAddr,
        count: u16,
        [interval, timeout]: [Duration; 2],
        ident: u16,
        reply: Sender<Event>,
    ) -> Self {
        Self { dst, count, interval, timeout, ident, reply, socket: None, requests: Vec::new() }
    }

    fn report(&self) -> PingReport {
        let micros = |d: Duration| d.as_micros() as u64;
        let trips: Vec<u64> = self.requests.iter().filter_map(|(_, trip)| trip.map(micros)).collect();
        PingReport {
            dst: self.dst,
            sent: self.requests.len() as u16,
            received: trips.len() as u16,
            first_us: self.requests.first().and_then(|(_, trip)| trip.map(micros)),
            min_us: trips.iter().min().copied().unwrap_or(0),
            avg_us: trips.iter().sum::<u64>() / trips.len().max(1) as u64,
            max_us: trips.iter().max().copied().unwrap_or(0),
        }
    }
}

impl Activity for Ping {
    fn turn(&mut self, cx: &mut Context<'_>) -> Next {
        let IpAddr::V4(_) = self.dst else {
            return fail(&self.reply, format!("{}: ping knows IPv4 only", self.dst));
        };
        let ident = self.ident;
        let handle = *self.socket.get_or_insert_with(|| {
            let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 16], vec![0; 2048]);
            let mut socket = Socket::new(buffer(), buffer());
            // It is new, and the identifier is not 0.
            let _ = socket.bind(Endpoint::Ident(ident));
            cx.sockets.add(socket)
        });
        let checksums = ChecksumCapabilities::default();
        let socket = cx.sockets.get_mut::<Socket<'_>>(handle);
        while let Ok((data, from)) = socket.recv() {
            let packet = Icmpv4Packet::new_checked(data);
            let repr = packet
                .as_ref()
                .map_err(|_| ())
                .and_then(|p| Icmpv4Repr::parse(p, &checksums).map_err(|_| ()));
            if let Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) = repr
                && IpAddr::from(from) == self.dst
                && data == PAYLOAD
                && let Some((sent, trip)) = self.requests.get_mut(usize::from(seq_no))
            {
                trip.get_or_insert(cx.now - *sent);
            }
        }
        let due = self.requests.last().map_or(cx.now, |(sent, _)| *sent + self.interval);
        if self.requests.len() < usize::from(self.count) && cx.now >= due {
            let seq_no = self.requests.len() as u16;
            let repr = Icmpv4Repr::EchoRequest { ident, seq_no, data: PAYLOAD };
            // A socket that is full, because the address is not resolved, is a lost request.
            if let Ok(out) = socket.send(repr.buffer_len(), self.dst.into()) {
                repr.emit(&mut Icmpv4Packet::new_unchecked(out), &checksums);
                cx.moved = true;
            }
            self.requests.push((cx.now, None));
        }
        let last = self.requests.last().map_or(cx.now, |(sent, _)| *sent);
        let all_sent = self.requests.len() >= usize::from(self.count);
        let all_answered = self.requests.iter().all(|(_, trip)| trip.is_some());
        if all_sent && (all_answered || cx.now >= last + self.timeout) {
            cx.sockets.remove(handle);
            tell(&self.reply, Event::Ping(self.report()));
            return Next::Over;
        }
        Next::At(Some(last + if all_sent { self.timeout } else { self.interval }))
    }
}
