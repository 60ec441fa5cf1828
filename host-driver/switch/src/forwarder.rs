//! The forwarder: one worker's datapath and ports, without thread and clock.
//!
//! Packets enter by [`Forwarder::poll_port`] or [`Forwarder::arrive`], pass the core as a burst, and
//! [`Forwarder::apply_verdict`] does what the core says. The parts that it works with have their own data:
//! tables, buffers, ports and other workers ([`Output`]), upcalls ([`Upcalls`]) and packets that wait for their flow's
//! decision ([`PendedPackets`]).

use std::time::Duration;

use culvert_flow::pending::{Completion, Ticket};
use culvert_flow::{Classified, Datapath, Port, Source, Verdict};
use culvert_packet::{Gso, Reason};

use crate::attached_port::unreachable_reason;
use crate::burst::{BURST, BurstPipeline};
use crate::handoff::{Handoff, HandoffPacket};
use crate::output::Output;
use crate::packet::Packet;
use crate::pended::PendedPackets;
use crate::pool::Pool;
use crate::port::Opener;
use crate::steering::NO_VPORT;
use crate::tickets::TicketRange;
use crate::turn::large_buffers;
use crate::upcall::Upcalls;
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
    /// Tables, buffers and ports.
    pub(super) out: Output,
    pub(super) upcalls: Upcalls,
    pub(super) pended: PendedPackets,
    /// `None` while a burst is processed.
    pipeline: Option<Box<BurstPipeline>>,
    /// Received packets; empty between two bursts.
    pub(super) burst: Vec<Packet>,
    /// Packets of another worker; empty between two bursts.
    pub(super) handed: Vec<HandoffPacket>,
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
}

impl Forwarder {
    /// Without any ports.
    pub(super) fn new(parts: Parts) -> Self {
        let packets = parts.pool.count() as usize;
        Forwarder {
            now: 0,
            copy_reinjected: false,
            out: Output::new(parts.dp, parts.pool, parts.handoff),
            upcalls: Upcalls::new(parts.upcalls, parts.tickets),
            pended: PendedPackets::new(packets, usize::from(NO_VPORT) + 1),
            pipeline: Some(Box::default()),
            burst: Vec::with_capacity(BURST),
            handed: Vec::with_capacity(BURST),
            busy: Duration::ZERO,
        }
    }

    /// Tables and counters.
    pub fn datapath(&mut self) -> &mut Datapath<'static> {
        &mut self.out.dp
    }

    /// Tables and counters, read-only.
    pub fn tables(&self) -> &Datapath<'static> {
        &self.out.dp
    }

    /// How many packets wait for their flow's decision.
    pub fn waiting(&self) -> usize {
        self.pended.len()
    }

    /// Packet buffers.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.out.pool
    }

    /// Attaches a port in place of the one with this name. See [`Switch::attach`](crate::Switch::attach).
    pub fn attach(&mut self, at: Port, open: Opener) {
        self.detach(at);
        self.out.ports.attach(at, open, self.now);
    }

    /// Notes that another worker serves a port.
    pub(super) fn set_remote(&mut self, at: Port, worker: u8) {
        self.detach(at);
        self.upcalls.forget(at);
        self.out.ports.set_remote(at, worker);
    }

    /// Detaches a port, after it has sent what was queued.
    pub fn detach(&mut self, at: Port) {
        self.flush();
        let waiting = self.out.ports.clear_turn(at, &mut self.out.pool);
        for _ in 0..waiting {
            self.out.dp.count_drop(unreachable_reason(at), at);
        }
        self.out.ports.detach(at);
    }

    /// Whether to poll a port: its packets have room wherever they may go.
    #[inline]
    pub(super) fn may_poll(&mut self, at: Port) -> bool {
        match at {
            Port::Vport(id) => {
                !self.upcalls.is_used_up(at)
                    && self.upcalls.has_room(id)
                    && self.pended.has_room(id.0, BURST)
                    && self.out.handoff.has_room(id.0, self.out.pool.free())
            }
            _ => true,
        }
    }

    /// Gives a local port its turn: receives a burst and forwards it, or what the last turn had no budget for. `true`: there
    /// was a packet, or the port is working off its last turns.
    #[inline]
    pub(super) fn poll_port(&mut self, n: usize) -> bool {
        let Some(at) = self.out.ports.local().get(n).map(|port| port.at()) else { return false };
        if !self.may_poll(at) {
            return false;
        }
        let (port, pool) = (&mut self.out.ports.local_mut()[n], &mut self.out.pool);
        if !port.turn.begin() {
            return true;
        }
        let mut burst = std::mem::take(&mut self.burst);
        if port.turn.is_empty() {
            let max = pool.common().saturating_sub(RESERVE).min(BURST);
            if max > 0 {
                pool.limit_large(large_buffers(at));
                port.receive(pool, &mut burst, max, self.now);
                pool.limit_large(None);
            }
            let mut bytes = 0;
            for packet in &mut burst {
                packet.input = at;
                bytes += packet.bytes().len() as u64;
            }
            port.counters.in_packets += burst.len() as u64;
            port.counters.in_bytes += bytes;
            port.turn.admit(pool, &mut burst);
            let work = port.take_rx_work();
            port.turn.charge(work);
        } else {
            port.turn.resume(pool, &mut burst);
        }
        let any = !burst.is_empty();
        if any {
            self.arrive(at, &mut burst);
            let work = self.out.ports.take_tx_work();
            if let Some(port) = self.out.ports.local_mut().get_mut(n) {
                port.turn.charge(work);
            }
        }
        self.burst = burst;
        any
    }

    /// Forwards packets, at most [`BURST`], that arrived at a local port, or hands them to the workers that serve their
    /// vports.
    #[inline]
    pub fn arrive(&mut self, at: Port, packets: &mut Vec<Packet>) {
        if let Port::Uplink(_) = at
            && !self.out.handoff.is_alone()
        {
            self.out.hand_off_foreign(packets);
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
        let steering = &self.out.handoff.steering;
        pipeline.run(&mut self.out.dp, packets, self.now, &mut self.pended, steering);
        for (n, (packet, len)) in packets.drain(..).zip(lens).enumerate() {
            let (verdict, punted) = pipeline.verdict(n);
            self.apply_verdict(packet, verdict, punted, len as usize);
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
            self.out.dp.counters.finished += 1;
            return self.out.send(packet, to, (1, len as u64));
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
            self.out.dp.counters.finished += 1;
        }
        match verdict {
            Verdict::Forward { to, record, copy, .. } => {
                let (packets, more) = self.out.count_segments(&packet, record);
                if copy && self.out.egress(to).is_ok() {
                    let charged = Output::charged_vport(packet.input, to);
                    if !self.upcalls.copy(&self.out.dp, &packet, charged, record, self.now) {
                        // The packet itself is forwarded. A connection whose end was not seen ends by its time-out.
                        self.out.count_drop_of(charged, Reason::UpcallFull);
                    }
                }
                self.out.send(packet, to, (packets, len as u64 + more));
            }
            Verdict::Answer => {
                let to = packet.input;
                self.out.send(packet, to, (0, 0));
            }
            Verdict::Replicate { record, group } => self.out.replicate(packet, record, group, len, self.now),
            Verdict::Punt { reason, ticket } => self.punt(packet, reason, ticket, punted.copied()),
            Verdict::Wait => {
                let vport = self.out.handoff.steering.charged_vport(&packet);
                if let Err(packet) = self.pended.insert(packet.number, packet, vport) {
                    self.out.drop(packet, Reason::BadDescriptor);
                }
            }
            // The core has counted it.
            Verdict::Drop { .. } => self.out.pool.give(packet),
        }
    }

    /// Sends what is queued at all ports, and wakes whoever gets a packet.
    pub(super) fn flush(&mut self) {
        self.out.flush(self.now);
        self.upcalls.notify();
    }

    /// Gives a packet to the slow path.
    fn punt(
        &mut self,
        packet: Packet,
        reason: Reason,
        ticket: Option<Ticket>,
        classified: Option<Classified>,
    ) {
        self.out.dp.counters.punted += 1;
        let charged = self.out.handoff.steering.charged_vport(&packet);
        if self.upcalls.punt(&packet, charged, reason, ticket, classified, self.now) {
            self.out.pool.give(packet);
        } else {
            let input = packet.input;
            self.out.count_drop_of(charged, Reason::UpcallFull);
            self.out.pool.give(packet);
            // The slow path, which does not see this packet, would complete the upcall.
            self.complete_upcall(input, ticket);
        }
    }

    /// Completes an upcall. If it was the last one of a decided flow, the packets that waited are sent.
    pub(super) fn complete_upcall(&mut self, input: Port, ticket: Option<Ticket>) {
        self.upcalls.complete(input);
        let Some(ticket) = ticket else { return };
        if let Completion::Live(id) = self.out.dp.complete_upcall(ticket, 1) {
            while let Some(waiting) = self.out.dp.pending.next_waiting(ticket.slot) {
                let Some(mut packet) = self.pended.take(waiting) else { continue };
                let number = self.pended.next_number(|| self.out.handoff.steering.charged_vport(&packet));
                packet.number = number;
                let (input, checksum, len) = (packet.input, packet.checksum, packet.bytes().len());
                let (source, now, mut punted) = (Source::Pended { record: id, checksum }, self.now, None);
                let done = packet.edit(|frame| {
                    self.out.dp.process_pipeline(frame, input, source, number, now, &mut punted)
                });
                if done == Some(Verdict::Wait) {
                    self.pended.reserve();
                }
                match done {
                    Some(verdict) => self.apply_verdict(packet, verdict, punted.as_ref(), len),
                    None => self.out.drop(packet, Reason::BadDescriptor),
                }
            }
            self.out.dp.go_live(ticket, id);
        }
    }
}
