//! What becomes of packets: the core's verdicts carried out between ports, pool and slow path. It is all of the switch but
//! its thread and its clock.

use std::time::Duration;

use culvert_flow::pending::{Completion, Ticket};
use culvert_flow::{Actions, Datapath, OuterInfo, Port, RecordId, Source, Verdict};
use culvert_packet::{Gso, Reason, parse_outer};
use culvert_pf::Result;

use super::burst::{BURST, Verdicts};
use super::crossing::Crossing;
use super::exceptions::Exceptions;
use super::packet::{Packet, Pool};
use super::places::Places;
use super::settings::SwitchSettings;
use super::slot::{Lost, Slot};
use super::tables;
use super::team::Team;
use crate::target::PacketSource;

/// Buffers that ports do not fill: the slow path's packets, and copies, find room when guests have filled the others.
pub(super) const RESERVE: usize = 2 * BURST;

/// The data path with its ports, in the hands of one thread.
pub struct Forwarder {
    pub(super) dp: Datapath<'static>,
    pub(super) pool: Pool,
    pub(super) slots: Vec<Slot>,
    /// Whether a port has come or gone since somebody looked at their links.
    pub(super) moved: bool,
    pub(super) exceptions: Exceptions,
    /// Milliseconds, wrapping: of all that is done from now on.
    pub now: u32,
    /// How long there has been something to do.
    pub(super) busy: Duration,
    /// Whether the slow path gets copies of TCP segments that it has just given back itself, as the core says. It has
    /// decided on them, and knows.
    pub show_returned: bool,
    /// Away while a burst is in work.
    verdicts: Option<Box<Verdicts>>,
    pub(super) burst: Vec<Packet>,
    /// Beside it, what is kept of a burst that others have a part in.
    pub(super) kept: Vec<Packet>,
    pub(super) places: Places,
    pub(super) crossing: Crossing,
    /// Slots of pending flows of the workers before this one.
    pub(super) first_ticket: u16,
    /// Packets that wait for the verdict on their flow, by number.
    waiting: Vec<Option<Packet>>,
    /// Slots with something to send.
    pub(super) dirty: Vec<u16>,
    lost: Lost,
}

impl Forwarder {
    /// One that is alone, without any ports, and the slow path's end of the queue of exceptions.
    ///
    /// # Errors
    /// There is not so much memory, or no descriptor to be had.
    pub fn new(settings: &SwitchSettings) -> Result<(Self, Box<dyn PacketSource>)> {
        let (mut team, source) = Team::new(&SwitchSettings { workers: vec![None], ..settings.clone() })?;
        Ok((team.forwarders.remove(0), source))
    }

    /// One of a team, without any ports. Packets are numbered below `packets`.
    pub(super) fn of(
        dp: Datapath<'static>,
        pool: Pool,
        exceptions: Exceptions,
        crossing: Crossing,
        first_ticket: u16,
        packets: usize,
    ) -> Self {
        Forwarder {
            dp,
            pool,
            slots: Vec::new(),
            moved: false,
            exceptions,
            now: 0,
            busy: Duration::ZERO,
            show_returned: false,
            verdicts: Some(Box::default()),
            burst: Vec::with_capacity(BURST),
            kept: Vec::with_capacity(BURST),
            places: Places::new(),
            crossing,
            first_ticket,
            waiting: (0..packets).map(|_| None).collect(),
            dirty: Vec::with_capacity(usize::from(Port::MAX_VPORTS)),
            lost: Vec::new(),
        }
    }

    /// Tables and counters.
    pub fn datapath(&mut self) -> &mut Datapath<'static> {
        &mut self.dp
    }

    /// The same, to look at.
    pub fn tables(&self) -> &Datapath<'static> {
        &self.dp
    }

    /// Packets that wait for the verdict on their flow.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().flatten().count()
    }

    /// Packet buffers.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// One burst from a port. `true`: there was something.
    #[inline]
    pub(super) fn serve(&mut self, n: usize) -> bool {
        let Some(at) = self.slots.get(n).map(|slot| slot.at) else { return false };
        if !self.is_heard(at) {
            return false;
        }
        let slot = &mut self.slots[n];
        let mut burst = std::mem::take(&mut self.burst);
        let most = self.pool.common().saturating_sub(RESERVE).min(BURST);
        if most > 0 {
            slot.receive(&mut self.pool, &mut burst, most, self.now);
        }
        let any = !burst.is_empty();
        if any {
            let mut bytes = 0;
            for packet in &mut burst {
                packet.input = at;
                bytes += packet.bytes().len() as u64;
            }
            slot.counters.in_packets += burst.len() as u64;
            slot.counters.in_bytes += bytes;
            self.arrive(at, &mut burst);
        }
        self.burst = burst;
        any
    }

    /// Takes packets, at most [`BURST`] of them, that have come by a port of this worker: through the core, or to the
    /// workers that they belong to.
    #[inline]
    pub fn arrive(&mut self, at: Port, packets: &mut Vec<Packet>) {
        if let Port::Uplink(_) = at
            && !self.crossing.is_alone()
        {
            self.keep_own(packets);
        }
        self.burst(packets);
    }

    /// Takes packets, at most [`BURST`] of them, each with the port that it came in by, through the core and sends what
    /// is to be sent.
    #[inline]
    pub fn burst(&mut self, packets: &mut Vec<Packet>) {
        debug_assert!(packets.len() <= BURST);
        let mut lens = [0; BURST];
        for (packet, len) in packets.iter().zip(&mut lens) {
            *len = packet.bytes().len() as u32;
        }
        let Some(mut verdicts) = self.verdicts.take() else { return };
        let all = verdicts.of(&mut self.dp, packets, self.now);
        for ((packet, verdict), len) in packets.drain(..).zip(all).zip(lens) {
            self.settle(packet, *verdict, len as usize);
        }
        self.verdicts = Some(verdicts);
        self.flush();
    }

    /// Carries out what the core says of a packet that was `len` bytes long.
    #[inline]
    pub(super) fn settle(&mut self, packet: Packet, (verdict, outer): (Verdict, OuterInfo), len: usize) {
        if let Verdict::Forward { to, copy: false, capture: false, .. } = verdict
            && packet.offload.gso == Gso::None
        {
            self.dp.counters.finished += 1;
            return self.send(packet, to, (1, len as u64));
        }
        self.settle_rarely(packet, verdict, outer, len);
    }

    #[cold]
    fn settle_rarely(&mut self, packet: Packet, verdict: Verdict, outer: OuterInfo, len: usize) {
        if !matches!(verdict, Verdict::Punt { .. } | Verdict::Wait) {
            self.dp.counters.finished += 1;
        }
        match verdict {
            Verdict::Forward { to, record, copy, .. } => {
                let (packets, more) = self.count_segments(&packet, record);
                if copy && self.way(to).is_ok() {
                    self.copy(&packet, record);
                }
                self.send(packet, to, (packets, len as u64 + more));
            }
            Verdict::Answer => {
                let to = packet.input;
                self.send(packet, to, (0, 0));
            }
            Verdict::Replicate { record, group } => self.replicate(packet, record, group, len),
            Verdict::Punt { reason, ticket } => self.punt(packet, reason, ticket, outer),
            Verdict::Wait => {
                let number = packet.number() as usize;
                match self.waiting.get_mut(number) {
                    Some(place) => *place = Some(packet),
                    None => self.drop(packet, Reason::BadDescriptor),
                }
            }
            // The core has counted it.
            Verdict::Drop { .. } => self.pool.give(packet),
        }
    }

    /// A packet that is yet to be cut was counted once, as it is long: its record gets to know of the segments. How
    /// many there are, and bytes of headers that are not there yet.
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

    #[inline]
    pub(super) fn count_input(&mut self, input: Port, packets: u64, bytes: u64) {
        if let Some(vport) = tables::vport(&mut self.dp, input) {
            vport.rx_packets += packets;
            vport.rx_bytes += bytes;
        }
    }

    /// Hands a packet to the port that it leaves by, where it waits for the end of the burst. What came in counts for the
    /// vport that it came from: packets and bytes.
    #[inline]
    pub(super) fn send(&mut self, packet: Packet, to: Port, (packets, bytes): (u64, u64)) {
        match self.way(to) {
            Ok(way) => {
                self.count_input(packet.input, packets, bytes);
                self.put(packet, to, way);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// Sends what waits at all ports.
    pub(super) fn flush(&mut self) {
        while let Some(n) = self.dirty.pop() {
            let Some(slot) = self.slots.get_mut(usize::from(n)) else { continue };
            let sent = slot.flush(&mut self.pool, self.now, &mut self.lost);
            if let Some(vport) = tables::vport(&mut self.dp, slot.at) {
                vport.tx_packets += sent.packets;
                vport.tx_bytes += sent.bytes;
                vport.drops += self.lost.iter().map(|(_, count)| count).sum::<u64>();
            }
            let drops = &mut self.dp.counters.drops;
            self.lost.drain(..).for_each(|(reason, count)| drops[reason as usize] += count);
        }
        self.crossing.ring();
        self.exceptions.ring();
    }

    /// Counts frames that ports have lost on the way in.
    pub(super) fn count_lost(&mut self) {
        for slot in &mut self.slots {
            let lost = slot.lost();
            self.dp.counters.drops[Reason::RingFull as usize] += lost;
            let vport = tables::vport(&mut self.dp, slot.at);
            vport.into_iter().for_each(|vport| vport.drops += lost);
        }
    }

    /// Drops a packet that the core has not counted.
    #[cold]
    pub(super) fn drop(&mut self, packet: Packet, reason: Reason) {
        self.dp.count_drop(reason, packet.input);
        self.pool.give(packet);
    }

    /// A packet of a pending flow has come back: if it was the last, what waited is sent.
    pub(super) fn returned(&mut self, input: Port, ticket: Option<Ticket>) {
        self.exceptions.returned(input);
        let Some(ticket) = ticket else { return };
        if let Completion::Live(id) = self.dp.complete_upcall(ticket, 1) {
            while let Some(number) = self.dp.pending.next_waiting(ticket.slot) {
                let Some(mut packet) = self.waiting.get_mut(number as usize).and_then(Option::take) else {
                    continue;
                };
                let (input, checksum, len) = (packet.input, packet.checksum, packet.bytes().len());
                let (source, now, mut punted) = (Source::Pended { record: id, checksum }, self.now, None);
                let done = packet
                    .edit(|frame| self.dp.process_pipeline(frame, input, source, number, now, &mut punted));
                let outer = punted.map_or(OuterInfo::default(), |c| c.outer);
                match done {
                    Some(verdict) => self.settle(packet, (verdict, outer), len),
                    None => self.drop(packet, Reason::BadDescriptor),
                }
            }
            self.dp.go_live(ticket, id);
        }
    }
}
