//! The forwarder: one worker's datapath and ports, without thread and clock.
//!
//! Packets enter by [`Forwarder::poll_port`] or [`Forwarder::arrive`], pass the core as a burst, and
//! [`Forwarder::apply_verdict`] does what the core says. The parts that it works with have their own data:
//! ports ([`PortTable`]), other workers ([`Handoff`]), upcalls ([`UpcallTx`]) and packets that wait for their flow's
//! decision ([`PendedPackets`]).

use std::time::Duration;

use culvert_flow::pending::{Completion, Ticket};
use culvert_flow::tables::Vport;
use culvert_flow::{Actions, Classified, Datapath, Port, RecordId, Source, Verdict};
use culvert_packet::{Gso, Reason, VportId, parse_outer};

use crate::attached_port::{Opener, unreachable_reason};
use crate::burst::{BURST, BurstPipeline};
use crate::handoff::Handoff;
use crate::packet::Packet;
use crate::pended::PendedPackets;
use crate::pool::Pool;
use crate::port_table::{Egress, PortTable};
use crate::steering::NO_VPORT;
use crate::tables;
use crate::tickets::TicketRange;
use crate::upcall_queue::UpcallTx;

/// Buffers that ports do not fill: reinjected packets and copies find buffers when guests have filled the others.
pub(super) const RESERVE: usize = 2 * BURST;

/// One worker's datapath and ports. One thread owns it.
pub struct Forwarder {
    /// Milliseconds, wrapping: the time of everything done from now on.
    pub now: u32,
    /// Whether the slow path gets copies of TCP control segments that it reinjected itself. The core says so, but the slow
    /// path has just decided on them.
    pub copy_reinjected: bool,
    pub(super) dp: Datapath<'static>,
    pub(super) pool: Pool,
    pub(super) ports: PortTable,
    pub(super) handoff: Handoff,
    pub(super) upcalls: UpcallTx,
    pub(super) tickets: TicketRange,
    pended: PendedPackets,
    /// `None` while a burst is processed.
    pipeline: Option<Box<BurstPipeline>>,
    /// Received packets; empty between two bursts.
    pub(super) burst: Vec<Packet>,
    /// A second list for bursts that are divided; empty between two bursts.
    pub(super) spare: Vec<Packet>,
    /// For how long there was work.
    pub(super) busy: Duration,
}

/// What a forwarder is made of.
pub(super) struct Parts {
    pub(super) dp: Datapath<'static>,
    pub(super) pool: Pool,
    pub(super) upcalls: UpcallTx,
    pub(super) handoff: Handoff,
    pub(super) tickets: TicketRange,
    /// Packet numbers of all workers are below this.
    pub(super) packets: usize,
}

impl Forwarder {
    /// Without any ports.
    pub(super) fn new(parts: Parts) -> Self {
        Forwarder {
            now: 0,
            copy_reinjected: false,
            dp: parts.dp,
            pool: parts.pool,
            ports: PortTable::new(),
            handoff: parts.handoff,
            upcalls: parts.upcalls,
            tickets: parts.tickets,
            pended: PendedPackets::new(parts.packets),
            pipeline: Some(Box::default()),
            burst: Vec::with_capacity(BURST),
            spare: Vec::with_capacity(BURST),
            busy: Duration::ZERO,
        }
    }

    /// Tables and counters.
    pub fn datapath(&mut self) -> &mut Datapath<'static> {
        &mut self.dp
    }

    /// Tables and counters, read-only.
    pub fn tables(&self) -> &Datapath<'static> {
        &self.dp
    }

    /// How many packets wait for their flow's decision.
    pub fn waiting(&self) -> usize {
        self.pended.len()
    }

    /// Packet buffers.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Attaches a port in place of the one with this name. See [`Switch::attach`](crate::Switch::attach).
    pub fn attach(&mut self, at: Port, open: Opener) {
        self.detach(at);
        self.ports.attach(at, open, self.now);
    }

    /// Notes that another worker serves a port.
    pub(super) fn set_remote(&mut self, at: Port, worker: u8) {
        self.detach(at);
        self.upcalls.forget(at);
        self.ports.set_remote(at, worker);
    }

    /// Detaches a port, after it has sent what was queued.
    pub fn detach(&mut self, at: Port) {
        self.flush();
        self.ports.detach(at);
    }

    /// Whether to poll a port: its packets have room wherever they may go.
    #[inline]
    pub(super) fn may_poll(&mut self, at: Port) -> bool {
        match at {
            Port::Vport(id) => !self.upcalls.is_used_up(at) && self.handoff.has_room(id.0),
            _ => true,
        }
    }

    /// Receives one burst from a local port and forwards it. `true`: there was a packet.
    #[inline]
    pub(super) fn poll_port(&mut self, n: usize) -> bool {
        let Some(at) = self.ports.local().get(n).map(|port| port.at()) else { return false };
        if !self.may_poll(at) {
            return false;
        }
        let port = &mut self.ports.local_mut()[n];
        let mut burst = std::mem::take(&mut self.burst);
        let max = self.pool.common().saturating_sub(RESERVE).min(BURST);
        if max > 0 {
            port.receive(&mut self.pool, &mut burst, max, self.now);
        }
        let any = !burst.is_empty();
        if any {
            let mut bytes = 0;
            for packet in &mut burst {
                packet.input = at;
                bytes += packet.bytes().len() as u64;
            }
            port.counters.in_packets += burst.len() as u64;
            port.counters.in_bytes += bytes;
            self.arrive(at, &mut burst);
        }
        self.burst = burst;
        any
    }

    /// Forwards packets, at most [`BURST`], that arrived at a local port, or hands them to the workers that serve their
    /// vports.
    #[inline]
    pub fn arrive(&mut self, at: Port, packets: &mut Vec<Packet>) {
        if let Port::Uplink(_) = at
            && !self.handoff.is_alone()
        {
            self.hand_off_foreign(packets);
        }
        self.burst(packets);
    }

    /// Forwards packets, at most [`BURST`], each with its input port set.
    #[inline]
    pub fn burst(&mut self, packets: &mut Vec<Packet>) {
        debug_assert!(packets.len() <= BURST);
        let mut lens = [0; BURST];
        for (packet, len) in packets.iter().zip(&mut lens) {
            *len = packet.bytes().len() as u32;
        }
        let Some(mut pipeline) = self.pipeline.take() else { return };
        pipeline.run(&mut self.dp, packets, self.now);
        for ((packet, (verdict, punted)), len) in packets.drain(..).zip(pipeline.verdicts()).zip(lens) {
            self.apply_verdict(packet, verdict, punted.as_ref(), len as usize);
        }
        self.pipeline = Some(pipeline);
        self.flush();
    }

    /// Does what the core says of a packet that was `len` bytes long. `punted` is the parsed packet, if it is to be punted.
    #[inline]
    pub(super) fn apply_verdict(
        &mut self,
        packet: Packet,
        verdict: Verdict,
        punted: Option<&Classified>,
        len: usize,
    ) {
        if let Verdict::Forward { to, copy: false, capture: false, .. } = verdict
            && packet.offload.gso == Gso::None
        {
            self.dp.counters.finished += 1;
            return self.send(packet, to, (1, len as u64));
        }
        self.apply_rare_verdict(packet, verdict, punted, len);
    }

    #[cold]
    fn apply_rare_verdict(
        &mut self,
        packet: Packet,
        verdict: Verdict,
        punted: Option<&Classified>,
        len: usize,
    ) {
        if !matches!(verdict, Verdict::Punt { .. } | Verdict::Wait) {
            self.dp.counters.finished += 1;
        }
        match verdict {
            Verdict::Forward { to, record, copy, .. } => {
                let (packets, more) = self.count_segments(&packet, record);
                if copy && self.egress(to).is_ok() {
                    self.copy(&packet, record);
                }
                self.send(packet, to, (packets, len as u64 + more));
            }
            Verdict::Answer => {
                let to = packet.input;
                self.send(packet, to, (0, 0));
            }
            Verdict::Replicate { record, group } => self.replicate(packet, record, group, len),
            Verdict::Punt { reason, ticket } => self.punt(packet, reason, ticket, punted.copied()),
            Verdict::Wait => {
                if let Err(packet) = self.pended.insert(packet) {
                    self.drop(packet, Reason::BadDescriptor);
                }
            }
            // The core has counted it.
            Verdict::Drop { .. } => self.pool.give(packet),
        }
    }

    /// Counts the segments of a large packet, which the core counted as one, in its flow record and tunnel. Returns how
    /// many there are, and how many bytes of headers they add.
    pub(super) fn count_segments(&mut self, packet: &Packet, record: RecordId) -> (u64, u64) {
        if packet.offload.gso == Gso::None {
            return (1, 0);
        }
        let Some(segments) = packet.segments() else { return (1, 0) };
        let outer = parse_outer(packet.bytes()).ok().flatten().map_or(0, |outer| usize::from(outer.inner));
        let more = segments.count() as u64 - 1;
        let bytes = more * (segments.headers() - outer) as u64;
        let hot = self.dp.table.hot_mut(record);
        (hot.packets, hot.bytes) = (hot.packets + more, hot.bytes + bytes);
        let pushed = hot.actions().contains(Actions::PUSH_OUTER);
        let tunnel = usize::from(hot.tunnel);
        if let Some(tunnel) = self.dp.tunnels.get_mut(tunnel).filter(|_| pushed) {
            (tunnel.packets, tunnel.bytes) = (tunnel.packets + more, tunnel.bytes + bytes);
        }
        (more + 1, bytes)
    }

    /// Counts packets that a vport's VM sent.
    #[inline]
    pub(super) fn count_input(&mut self, input: Port, packets: u64, bytes: u64) {
        if let Some(vport) = tables::vport(&mut self.dp, input) {
            vport.rx_packets += packets;
            vport.rx_bytes += bytes;
        }
    }

    /// Where packets to a port leave, or why they cannot.
    #[inline]
    pub(super) fn egress(&self, to: Port) -> Result<Egress, Reason> {
        if let Port::Vport(VportId(n)) = to {
            match self.dp.vports.get(usize::from(n)) {
                Some(vport) if vport.is_up() => {}
                Some(vport) if vport.flags & Vport::PRESENT != 0 => return Err(Reason::VportDown),
                _ => return Err(Reason::NoVport),
            }
        }
        self.ports.egress(to).ok_or(unreachable_reason(to))
    }

    /// Queues a packet at the port that it leaves by, until the end of the burst, and counts it for the vport that sent
    /// it: packets and bytes.
    #[inline]
    pub(super) fn send(&mut self, packet: Packet, to: Port, (packets, bytes): (u64, u64)) {
        match self.egress(to) {
            Ok(egress) => {
                self.count_input(packet.input, packets, bytes);
                self.enqueue(packet, to, egress);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// Queues a packet at a local port, or hands it to the worker that serves the port.
    #[inline]
    pub(super) fn enqueue(&mut self, packet: Packet, to: Port, egress: Egress) {
        match egress {
            Egress::Local(n) => self.ports.enqueue(n, packet),
            Egress::Remote(worker) => {
                let charged_vport = match (packet.input, to) {
                    (Port::Vport(id), _) | (_, Port::Vport(id)) => id.0,
                    _ => NO_VPORT,
                };
                self.hand_off(packet, worker, Some(to), charged_vport);
            }
        }
    }

    /// Sends what is queued at all ports, and wakes whoever gets something.
    pub(super) fn flush(&mut self) {
        self.ports.flush(&mut self.dp, &mut self.pool, self.now);
        self.handoff.notify();
        self.upcalls.notify();
    }

    /// Counts frames that ports dropped on reception.
    pub(super) fn count_rx_drops(&mut self) {
        self.ports.count_rx_drops(&mut self.dp);
    }

    /// Drops a packet that the core has not counted.
    #[cold]
    pub(super) fn drop(&mut self, packet: Packet, reason: Reason) {
        self.dp.count_drop(reason, packet.input);
        self.pool.give(packet);
    }

    /// Completes an upcall. If it was the last one of a decided flow, the packets that waited are sent.
    pub(super) fn complete_upcall(&mut self, input: Port, ticket: Option<Ticket>) {
        self.upcalls.complete(input);
        let Some(ticket) = ticket else { return };
        if let Completion::Live(id) = self.dp.complete_upcall(ticket, 1) {
            while let Some(number) = self.dp.pending.next_waiting(ticket.slot) {
                let Some(mut packet) = self.pended.take(number) else { continue };
                let (input, checksum, len) = (packet.input, packet.checksum, packet.bytes().len());
                let (source, now, mut punted) = (Source::Pended { record: id, checksum }, self.now, None);
                let done = packet
                    .edit(|frame| self.dp.process_pipeline(frame, input, source, number, now, &mut punted));
                match done {
                    Some(verdict) => self.apply_verdict(packet, verdict, punted.as_ref(), len),
                    None => self.drop(packet, Reason::BadDescriptor),
                }
            }
            self.dp.go_live(ticket, id);
        }
    }
}
