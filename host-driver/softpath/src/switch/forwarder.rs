//! What becomes of packets: the core's verdicts carried out between ports, pool and slow path.

use culvert_abi::command::Op;
use culvert_abi::pf::{self, Entry};
use culvert_flow::encap::Variable;
use culvert_flow::pending::{Settled, Ticket};
use culvert_flow::tables::{Member, Vport};
use culvert_flow::{Actions, Datapath, Port, RecordId, Verdict, Wire};
use culvert_packet::{Gso, Offload, Reason, VportId, parse_outer};

use super::exceptions::Exceptions;
use super::packet::{Packet, Pool};
use super::slot::{Lost, Slot};

/// No slot.
const NOWHERE: u16 = u16::MAX;

/// The data path with its ports.
pub(super) struct Forwarder {
    pub(super) dp: Datapath<'static>,
    pub(super) pool: Pool,
    pub(super) slots: Vec<Slot>,
    pub(super) exceptions: Exceptions,
    pub(super) now: u32,
    of_vport: Vec<u16>,
    of_uplink: [u16; Port::UPLINKS as usize],
    /// Packets that wait for the verdict on their flow, by number.
    waiting: Vec<Option<Packet>>,
    /// Slots with something to send.
    pub(super) dirty: Vec<u16>,
    lost: Lost,
}

impl Forwarder {
    pub(super) fn new(dp: Datapath<'static>, pool: Pool, exceptions: Exceptions) -> Self {
        let waiting = (0..pool.count()).map(|_| None).collect();
        Forwarder {
            dp,
            pool,
            slots: Vec::new(),
            exceptions,
            now: 0,
            of_vport: vec![NOWHERE; usize::from(Port::MAX_VPORTS)],
            of_uplink: [NOWHERE; Port::UPLINKS as usize],
            waiting,
            dirty: Vec::with_capacity(usize::from(Port::MAX_VPORTS)),
            lost: Vec::new(),
        }
    }

    /// Puts a port in its place, where no other is.
    pub(super) fn attach(&mut self, slot: Slot) {
        let n = self.slots.len() as u16;
        if let Some(place) = self.place(slot.at) {
            *place = n;
            self.slots.push(slot);
        }
    }

    /// Takes a port away. What waits to leave by it is sent before.
    pub(super) fn detach(&mut self, at: Port) {
        self.flush();
        let Some(n) = self.place(at).map(|place| std::mem::replace(place, NOWHERE)).filter(|n| *n != NOWHERE)
        else {
            return;
        };
        self.slots.swap_remove(usize::from(n)).retire();
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
            self.count_input(packet.input, 1, len as u64);
            return self.send(packet, to);
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
                self.count_input(packet.input, packets, len as u64 + more);
                if copy {
                    self.copy(&packet, record);
                }
                self.send(packet, to);
            }
            Verdict::Answer => {
                let to = packet.input;
                self.send(packet, to);
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
    fn count_segments(&mut self, packet: &Packet, record: RecordId) -> (u64, u64) {
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
    fn count_input(&mut self, input: Port, packets: u64, bytes: u64) {
        if let Port::Vport(VportId(n)) = input
            && let Some(vport) = self.dp.vports.get_mut(usize::from(n))
        {
            vport.rx_packets += packets;
            vport.rx_bytes += bytes;
        }
    }

    /// Hands a packet to the port that it leaves by, where it waits for the end of the burst.
    #[inline]
    pub(super) fn send(&mut self, packet: Packet, to: Port) {
        if let Port::Vport(VportId(n)) = to {
            match self.dp.vports.get(usize::from(n)) {
                Some(vport) if vport.is_up() => {}
                Some(vport) if vport.flags & Vport::PRESENT != 0 => {
                    return self.drop(packet, Reason::VportDown);
                }
                _ => return self.drop(packet, Reason::NoVport),
            }
        }
        match self.slot(to) {
            Some(n) => {
                let out = &mut self.slots[n].out;
                if out.is_empty() {
                    self.dirty.push(n as u16);
                }
                out.push(packet);
            }
            None => {
                let reason = match to {
                    Port::Uplink(_) => Reason::UplinkDown,
                    Port::Vport(_) => Reason::QueueStopped,
                    Port::Host | Port::None => Reason::NoVport,
                };
                self.drop(packet, reason);
            }
        }
    }

    /// Sends what waits at all ports.
    pub(super) fn flush(&mut self) {
        while let Some(n) = self.dirty.pop() {
            let Some(slot) = self.slots.get_mut(usize::from(n)) else { continue };
            let sent = slot.flush(&mut self.pool, self.now, &mut self.lost);
            if let Port::Vport(VportId(n)) = slot.at
                && let Some(vport) = self.dp.vports.get_mut(usize::from(n))
            {
                vport.tx_packets += sent.packets;
                vport.tx_bytes += sent.bytes;
            }
            for (reason, count) in self.lost.drain(..) {
                self.dp.counters.drops[reason as usize] += count;
            }
        }
        self.exceptions.ring();
    }

    /// Counts frames that ports have lost on the way in.
    pub(super) fn count_lost(&mut self) {
        let lost: u64 = self.slots.iter_mut().map(Slot::lost).sum();
        self.dp.counters.drops[Reason::RingFull as usize] += lost;
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

    /// One copy for each member of a group, with outer headers of its own.
    fn replicate(&mut self, mut packet: Packet, record: RecordId, group: u16, len: usize) {
        let input = packet.input;
        let (packets, more) = self.count_segments(&packet, record);
        self.count_input(input, packets, len as u64 + more);
        let hot = self.dp.table.hot(record);
        let (entropy, vsid) = (hot.entropy, hot.vsid);
        let Some(group) = self.dp.groups.get(usize::from(group)).copied() else {
            return self.drop(packet, Reason::NoReceiver);
        };
        let inner_len = packet.bytes().len();
        let v = Variable { inner_len, ecn: 0, entropy, vsid };
        let mut sent = false;
        for &bits in group.members.iter().take(usize::from(group.len)) {
            let member = Member::from_bits(bits);
            if matches!(member, Member::Port(port) if port == input) {
                continue;
            }
            let mut outer = [0; culvert_packet::MAX_OUTER];
            let (header, to) = match member {
                Member::Port(port) => (&outer[..0], port),
                Member::Tunnel(index) => match self.dp.replicate_header(index, &v, &mut outer) {
                    Some((len, uplink)) => (&outer[..len], Port::Uplink(uplink)),
                    None => {
                        self.dp.count_drop(Reason::NextHopUnresolved, input);
                        continue;
                    }
                },
            };
            let taken = self.pool.take_for(inner_len);
            match taken {
                Some(mut copy) => {
                    (copy.input, copy.checksum, copy.offload) = (input, packet.checksum, packet.offload);
                    if copy.fill(packet.bytes()) && copy.prepend(header) {
                        self.send(copy, to);
                    } else {
                        self.drop(copy, Reason::NoBuffer);
                    }
                }
                None => self.dp.count_drop(Reason::NoBuffer, input),
            }
            sent = true;
        }
        if !sent {
            self.dp.count_drop(Reason::NoReceiver, input);
        }
        packet.offload = Offload::default();
        self.pool.give(packet);
    }
}
