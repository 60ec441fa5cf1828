//! What becomes of packets: the core's verdicts carried out between ports, pool and slow path. It is all of the switch but
//! its thread and its clock.

use culvert_abi::command::Op;
use culvert_abi::pf::{self, Entry};
use culvert_flow::pending::{Settled, Ticket};
use culvert_flow::tables::Vport;
use culvert_flow::{Actions, Datapath, Port, RecordId, Verdict, Wire};
use culvert_nic::{Error, Result};
use culvert_packet::{Gso, Offload, Reason, VportId, parse_outer};

use super::burst::{BURST, Verdicts};
use super::exceptions::{Exceptions, queue};
use super::handle::SwitchSettings;
use super::packet::{Packet, Pool};
use super::slot::{Lost, Opener, Slot};
use super::steps::name;
use super::tables;
use crate::target::PacketSource;

/// Buffers that ports do not fill: the slow path's packets, and copies, find room when guests have filled the others.
pub(super) const RESERVE: usize = 2 * BURST;
/// No slot.
const NOWHERE: u16 = u16::MAX;

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
    /// Whether the slow path gets copies of TCP segments that it has just given back itself, as the core says. It has
    /// decided on them, and knows.
    pub show_returned: bool,
    /// Away while a burst is in work.
    verdicts: Option<Box<Verdicts>>,
    burst: Vec<Packet>,
    of_vport: Vec<u16>,
    of_uplink: [u16; Port::UPLINKS as usize],
    /// Packets that wait for the verdict on their flow, by number.
    waiting: Vec<Option<Packet>>,
    /// Slots with something to send.
    pub(super) dirty: Vec<u16>,
    lost: Lost,
}

impl Forwarder {
    /// Without any ports, and the slow path's end of the queue of exceptions.
    ///
    /// # Errors
    /// There is not so much memory, or no descriptor to be had.
    pub fn new(settings: &SwitchSettings) -> Result<(Self, Box<dyn PacketSource>)> {
        let system = |what| move |source| Error::System { what, source };
        let pool = Pool::new(settings.buffers, settings.large_buffers).map_err(system("packet buffers"))?;
        let dp = tables::datapath(&settings.sizes, pool.count(), settings.secret)
            .map_err(system("flow tables"))?;
        let (exceptions, source) = queue()?;
        let waiting = (0..pool.count()).map(|_| None).collect();
        let forwarder = Forwarder {
            dp,
            pool,
            slots: Vec::new(),
            moved: false,
            exceptions,
            now: 0,
            show_returned: false,
            verdicts: Some(Box::default()),
            burst: Vec::with_capacity(BURST),
            of_vport: vec![NOWHERE; usize::from(Port::MAX_VPORTS)],
            of_uplink: [NOWHERE; Port::UPLINKS as usize],
            waiting,
            dirty: Vec::with_capacity(usize::from(Port::MAX_VPORTS)),
            lost: Vec::new(),
        };
        Ok((forwarder, Box::new(source)))
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

    /// Attaches a port, where another may have been. See [`Switch::attach`](super::Switch::attach).
    pub fn attach(&mut self, at: Port, open: Opener) {
        // Closed first: not every port can be open twice.
        self.detach(at);
        let slot = Slot::new(at, name(at), open, self.now);
        let n = self.slots.len() as u16;
        if let Some(place) = self.place(at) {
            *place = n;
            self.slots.push(slot);
            self.moved = true;
        }
    }

    /// One burst from a port. `true`: there was something.
    #[inline]
    pub(super) fn serve(&mut self, n: usize) -> bool {
        let Some(slot) = self.slots.get_mut(n) else { return false };
        let at = slot.at;
        if let Port::Vport(id) = at
            && self.exceptions.is_used_up(id)
        {
            return false;
        }
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
            self.burst(&mut burst);
        }
        self.burst = burst;
        any
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

    /// Takes a port away. What waits to leave by it is sent before.
    pub fn detach(&mut self, at: Port) {
        self.flush();
        let Some(n) = self.place(at).map(|place| std::mem::replace(place, NOWHERE)).filter(|n| *n != NOWHERE)
        else {
            return;
        };
        self.slots.swap_remove(usize::from(n)).retire();
        self.moved = true;
        if let Some(moved) = self.slots.get(usize::from(n)).map(|slot| slot.at)
            && let Some(place) = self.place(moved)
        {
            *place = n;
        }
    }

    fn place(&mut self, at: Port) -> Option<&mut u16> {
        match at {
            Port::Vport(id) => self.of_vport.get_mut(usize::from(id.0)),
            Port::Uplink(n) => self.of_uplink.get_mut(usize::from(n)),
            Port::Host | Port::None => None,
        }
    }

    /// The place of a port.
    pub(super) fn slot(&self, at: Port) -> Option<usize> {
        let n = match at {
            Port::Vport(id) => self.of_vport.get(usize::from(id.0)),
            Port::Uplink(n) => self.of_uplink.get(usize::from(n)),
            Port::Host | Port::None => None,
        };
        n.filter(|n| **n != NOWHERE).map(|n| usize::from(*n))
    }

    /// Carries out what the core says of a packet that was `len` bytes long.
    #[inline]
    pub(super) fn settle(&mut self, packet: Packet, (verdict, wire): (Verdict, Wire), len: usize) {
        if let Verdict::Forward { to, copy: false, capture: false, .. } = verdict
            && packet.offload.gso == Gso::None
        {
            self.dp.counters.finished += 1;
            return self.send(packet, to, (1, len as u64));
        }
        self.settle_rarely(packet, verdict, wire, len);
    }

    #[cold]
    fn settle_rarely(&mut self, packet: Packet, verdict: Verdict, wire: Wire, len: usize) {
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
            Verdict::Punt { reason, ticket } => self.punt(packet, reason, ticket, wire),
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
            Ok(n) => {
                self.count_input(packet.input, packets, bytes);
                self.put(packet, n);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// The slot that packets to a port leave by.
    #[inline]
    pub(super) fn way(&self, to: Port) -> std::result::Result<usize, Reason> {
        if let Port::Vport(VportId(n)) = to {
            match self.dp.vports.get(usize::from(n)) {
                Some(vport) if vport.is_up() => {}
                Some(vport) if vport.flags & Vport::PRESENT != 0 => return Err(Reason::VportDown),
                _ => return Err(Reason::NoVport),
            }
        }
        self.slot(to).ok_or(match to {
            Port::Uplink(_) => Reason::UplinkDown,
            Port::Vport(_) => Reason::QueueStopped,
            Port::Host | Port::None => Reason::NoVport,
        })
    }

    #[inline]
    pub(super) fn put(&mut self, packet: Packet, slot: usize) {
        let out = &mut self.slots[slot].out;
        if out.is_empty() {
            self.dirty.push(slot as u16);
        }
        out.push(packet);
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

    fn punt(&mut self, packet: Packet, reason: Reason, ticket: Option<Ticket>, wire: Wire) {
        let entry = Entry {
            reason: reason as u8,
            ticket: ticket.map_or(0, Ticket::bits),
            peer: wire.peer,
            inner: wire.inner,
            vsid: wire.vsid,
            ..self.entry(&packet)
        };
        let input = packet.input;
        self.dp.counters.punted += 1;
        if self.exceptions.give(&entry, packet.bytes().to_vec()) {
            self.pool.give(packet);
        } else {
            self.drop(packet, Reason::ExceptionFull);
            // As the slow path would do, which does not get to know of it.
            self.returned(input, ticket);
        }
    }

    /// Shows the slow path a TCP segment that goes by `record`, as it leaves.
    fn copy(&mut self, packet: &Packet, record: RecordId) {
        let hot = self.dp.table.hot(record);
        let pushed = hot.actions().contains(Actions::PUSH_OUTER);
        let tunnel = self.dp.tunnels.get(usize::from(hot.tunnel)).filter(|_| pushed);
        let entry = Entry {
            reason: Reason::TcpControl as u8,
            target: 1,
            arg1: self.dp.table.cold(record).connection,
            inner: tunnel.map_or(0, |t| u16::from(t.header_len)),
            ..self.entry(packet)
        };
        if !self.exceptions.give(&entry, packet.bytes().to_vec()) {
            // The packet itself goes on. A connection whose end was not seen ends by its time.
            self.dp.counters.drops[Reason::ExceptionFull as usize] += 1;
        }
    }

    fn entry(&self, packet: &Packet) -> Entry {
        let Offload { checksum, gso, mss, .. } = packet.offload;
        Entry {
            op: Op::Exception as u8,
            port: packet.input.bits(),
            len: packet.bytes().len() as u32,
            now: self.now,
            offload: pf::Offload { checksum: checksum as u8, gso: gso as u8, mss, ..pf::Offload::default() },
            ..Entry::default()
        }
    }

    /// A packet of a pending flow has come back: if it was the last, what waited is sent.
    pub(super) fn returned(&mut self, input: Port, ticket: Option<Ticket>) {
        self.exceptions.returned(input);
        let Some(ticket) = ticket else { return };
        if let Settled::Live(id) = self.dp.returned(ticket, 1) {
            while let Some(number) = self.dp.pending.next_waiting(ticket.slot) {
                let Some(mut packet) = self.waiting.get_mut(number as usize).and_then(Option::take) else {
                    continue;
                };
                let (input, checksum, len) = (packet.input, packet.checksum, packet.bytes().len());
                let now = self.now;
                let done = packet.edit(|frame| self.dp.process_waited(frame, input, checksum, id, now));
                match done {
                    Some(done) => self.settle(packet, done, len),
                    None => self.drop(packet, Reason::BadDescriptor),
                }
            }
            self.dp.go_live(ticket, id);
        }
    }
}
