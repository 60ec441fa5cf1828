//! Packets: the core's verdict becomes descriptors for the board.

use culvert_abi::command::Op;
use culvert_abi::pf::OffloadBits;
use culvert_abi::regs::{QUEUE_COMMAND, QUEUE_UPCALL};
use culvert_abi::soc::{BoardPort, CAPTURE, COPY, Descriptor, NO_BUFFER, RELEASE};
use culvert_flow::encap::Variable;
use culvert_flow::pending::Ticket;
use culvert_flow::tables::{Member, Vport};
use culvert_flow::{Actions, Checksum, Frame, OuterInfo, Port, RecordId, Verdict};
use culvert_packet::{Reason, VportId};

use crate::bus::Bus;
use crate::firmware::{Firmware, VFS};

/// Where a frame lies after the core has worked on it.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    len: usize,
    dst_mac: [u8; 6],
}

/// What goes with a copy for the host: its connection, and how many bytes of outer headers it has.
#[derive(Clone, Copy, Default)]
struct Shown {
    connection: u64,
    inner: u16,
}

fn place(frame: &Frame<'_>) -> Place {
    Place {
        start: frame.start(),
        len: frame.len(),
        dst_mac: frame.bytes().first_chunk().copied().unwrap_or_default(),
    }
}

fn checksum(offload: &OffloadBits) -> Checksum {
    match offload.checksum {
        OffloadBits::VERIFIED => Checksum::Good,
        OffloadBits::BAD => Checksum::Bad,
        _ => Checksum::Unknown,
    }
}

impl Firmware<'_> {
    /// The fast path for the commonest packets, from ring to ring. `false`: the packet is as it was, and goes the
    /// other way.
    #[inline(always)]
    pub(crate) fn fast_path(&mut self, bus: &mut impl Bus, d: &Descriptor) -> bool {
        let Some(mut frame) = packet(bus, d) else { return false };
        match BoardPort::from_bits(d.port) {
            BoardPort::Vf(n) => {
                let id = self.vf_vport[usize::from(n) % VFS];
                let Some((to, _)) = self.datapath.fast_outbound(&mut frame, VportId(id), d.now) else {
                    return false;
                };
                let at = (frame.start(), frame.len());
                let port = match to {
                    Port::Uplink(uplink) => Some(BoardPort::Uplink(uplink)),
                    to => self.count_to_vf(to, at.1),
                };
                let Some(port) = port else {
                    let at = place(&frame);
                    self.transmit(bus, d, Port::Vport(VportId(id)), to, at, 0, Shown::default());
                    return true;
                };
                if let Some(vport) = self.datapath.vports.get_mut(usize::from(id)) {
                    vport.rx_packets += 1;
                    vport.rx_bytes += u64::from(d.len);
                }
                self.send_fast(bus, d, at, (id, port));
            }
            BoardPort::Uplink(n) => {
                let Some((to, _)) = self.datapath.fast_inbound(&mut frame, checksum(&d.offload), d.now)
                else {
                    return false;
                };
                let at = (frame.start(), frame.len());
                match self.count_to_vf(Port::Vport(to), at.1) {
                    Some(port) => self.send_fast(bus, d, at, (Port::Uplink(n).bits(), port)),
                    None => {
                        let at = place(&frame);
                        self.transmit(bus, d, Port::Uplink(n), Port::Vport(to), at, 0, Shown::default());
                    }
                }
            }
            BoardPort::Queue(_) | BoardPort::None => return false,
        }
        true
    }

    /// The VF that a frame of so many bytes for a vport goes to, counted as sent. `None`: another way than the commonest.
    #[inline(always)]
    fn count_to_vf(&mut self, to: Port, len: usize) -> Option<BoardPort> {
        let Port::Vport(VportId(n)) = to else { return None };
        let vport = self.datapath.vports.get_mut(usize::from(n))?;
        if !vport.is_up() || vport.target != Vport::VF {
            return None;
        }
        vport.tx_packets += 1;
        vport.tx_bytes += len as u64;
        Some(BoardPort::Vf(vport.number as u8))
    }

    /// Sends what the fast path has finished: bytes from `start` on, from a port of the data path to one of the
    /// board.
    #[inline(always)]
    fn send_fast(
        &mut self,
        bus: &mut impl Bus,
        d: &Descriptor,
        (start, len): (usize, usize),
        (from, to): (u16, BoardPort),
    ) {
        bus.send(&Descriptor {
            buffer: d.buffer,
            offset: start as u16,
            len: len as u16,
            op: Op::Transmit as u8,
            flags: RELEASE,
            port: to.bits(),
            target: d.port,
            now: d.now,
            vport: from,
            offload: d.offload,
            ..Descriptor::default()
        });
    }

    /// A frame from a VF or from the wire that the fast path has left.
    pub(crate) fn frame(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        let input = self.input(d);
        let Some(mut frame) = packet(bus, d) else {
            return self.drop_packet(bus, d, Reason::BadDescriptor, input);
        };
        let (verdict, outer) =
            self.datapath.process_pipeline(&mut frame, input, checksum(&d.offload), d.buffer, d.now);
        let at = place(&frame);
        if !matches!(verdict, Verdict::Punt { .. } | Verdict::Wait) {
            self.datapath.counters.finished += 1;
        }
        self.emit(bus, d, input, verdict, outer, at);
    }

    /// A packet that the host sends on the way of its flow.
    pub(crate) fn inject_lookup(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        let input = self.input(d);
        match packet(bus, d) {
            Some(mut frame) => {
                let ticket = Ticket::from_bits(d.ticket);
                let (verdict, outer) =
                    self.datapath.process_returned(&mut frame, input, ticket, d.buffer, d.now);
                let at = place(&frame);
                self.emit(bus, d, input, verdict, outer, at);
            }
            None => self.drop_packet(bus, d, Reason::BadDescriptor, input),
        }
        self.complete_upcall(bus, d.ticket, 1, d.now);
    }

    /// A packet that the host sends out of a port as it is.
    pub(crate) fn inject_out(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        let input = self.input(d);
        match packet(bus, d) {
            Some(frame) => {
                let at = place(&frame);
                self.transmit(bus, d, input, Port::from_bits(d.target), at, 0, Shown::default());
            }
            None => self.drop_packet(bus, d, Reason::BadDescriptor, input),
        }
        self.complete_upcall(bus, d.ticket, 1, d.now);
    }

    /// Packets that ended at the host.
    pub(crate) fn dropped(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        let reason = Reason::from_u8(d.reason).unwrap_or(Reason::BadDescriptor);
        let input = self.input(d);
        let count = d.arg0.max(1);
        // The host may report at most what was on its way to it; a flow's count cannot go below zero.
        for _ in 0..count.min(1 << 16) {
            self.datapath.count_drop(reason, input);
        }
        self.complete_upcall(bus, d.ticket, count, d.now);
        Self::complete(bus, d, None, 0, 0);
    }

    /// A packet that has waited for its flow to go live.
    pub(crate) fn waited(&mut self, bus: &mut impl Bus, d: &Descriptor, id: RecordId) {
        let input = self.input(d);
        let Some(mut frame) = packet(bus, d) else {
            return self.drop_packet(bus, d, Reason::BadDescriptor, input);
        };
        let (verdict, outer) =
            self.datapath.process_waited(&mut frame, input, checksum(&d.offload), id, d.now);
        let at = place(&frame);
        self.datapath.counters.finished += 1;
        self.emit(bus, d, input, verdict, outer, at);
    }

    fn emit(
        &mut self,
        bus: &mut impl Bus,
        d: &Descriptor,
        input: Port,
        verdict: Verdict,
        outer: OuterInfo,
        at: Place,
    ) {
        match verdict {
            Verdict::Forward { to, record, copy, capture } => {
                let mut flags = 0;
                let mut shown = Shown::default();
                if copy {
                    flags |= COPY;
                    shown = self.shown(record);
                }
                if capture {
                    flags |= CAPTURE;
                }
                self.transmit(bus, d, input, to, at, flags, shown);
            }
            Verdict::Answer => self.transmit(bus, d, input, input, at, 0, Shown::default()),
            Verdict::Punt { reason, ticket } => self.upcall(bus, d, input, reason, ticket, outer),
            Verdict::Wait => {
                if let Some(kept) = self.waiting.get_mut(d.buffer as usize) {
                    *kept = *d;
                }
            }
            Verdict::Drop { reason } => self.send_drop(bus, d, reason),
            Verdict::Replicate { record, group } => self.replicate(bus, d, input, record, group, at),
        }
    }

    /// Sends a frame out of one port, buffer and all.
    #[inline(never)]
    fn transmit(
        &mut self,
        bus: &mut impl Bus,
        d: &Descriptor,
        input: Port,
        to: Port,
        at: Place,
        flags: u16,
        shown: Shown,
    ) {
        let port = match self.output(to, at.dst_mac) {
            Ok(port) => port,
            Err(reason) => return self.drop_packet(bus, d, reason, input),
        };
        self.count(input, to, usize::from(d.len), at.len);
        bus.send(&Descriptor {
            op: Op::Transmit as u8,
            reason: 0,
            flags: RELEASE | flags,
            port: port.bits(),
            target: d.port,
            offset: at.start as u16,
            len: at.len as u16,
            header_len: 0,
            vport: input.bits(),
            arg1: shown.connection,
            inner: shown.inner,
            ..*d
        });
    }

    /// What the host gets to know of a copy of a packet that goes by `record`.
    #[cold]
    fn shown(&self, record: RecordId) -> Shown {
        let hot = self.datapath.table.hot(record);
        let pushed = hot.actions().contains(Actions::PUSH_OUTER);
        let tunnel = self.datapath.tunnels.get(usize::from(hot.tunnel)).filter(|_| pushed);
        Shown {
            connection: self.datapath.table.cold(record).connection,
            inner: tunnel.map_or(0, |t| u16::from(t.header_len)),
        }
    }

    fn count(&mut self, input: Port, to: Port, received: usize, sent: usize) {
        if let Port::Vport(VportId(n)) = input
            && let Some(vport) = self.datapath.vports.get_mut(usize::from(n))
        {
            vport.rx_packets += 1;
            vport.rx_bytes += received as u64;
        }
        if let Port::Vport(VportId(n)) = to
            && let Some(vport) = self.datapath.vports.get_mut(usize::from(n))
        {
            vport.tx_packets += 1;
            vport.tx_bytes += sent as u64;
        }
    }

    #[cold]
    fn upcall(
        &mut self,
        bus: &mut impl Bus,
        d: &Descriptor,
        input: Port,
        reason: Reason,
        ticket: Option<Ticket>,
        outer: OuterInfo,
    ) {
        self.datapath.counters.punted += 1;
        bus.send(&Descriptor {
            op: Op::Upcall as u8,
            reason: reason as u8,
            flags: RELEASE,
            port: origin(d),
            target: QUEUE_UPCALL as u16,
            ticket: ticket.map_or(0, Ticket::bits),
            vport: input.bits(),
            peer: outer.peer,
            inner: outer.inner,
            vsid: outer.vsid,
            ..*d
        });
    }

    /// Drops a packet that the core has not counted.
    #[cold]
    pub(crate) fn drop_packet(&mut self, bus: &mut impl Bus, d: &Descriptor, reason: Reason, input: Port) {
        self.datapath.count_drop(reason, input);
        self.send_drop(bus, d, reason);
    }

    #[cold]
    fn send_drop(&mut self, bus: &mut impl Bus, d: &Descriptor, reason: Reason) {
        let port = origin(d);
        bus.send(&Descriptor { op: Op::Drop as u8, reason: reason as u8, flags: RELEASE, port, ..*d });
    }

    /// One copy for each member: outer headers of its own, the payload shared. The last one releases the buffer.
    #[cold]
    fn replicate(
        &mut self,
        bus: &mut impl Bus,
        d: &Descriptor,
        input: Port,
        id: RecordId,
        group: u16,
        at: Place,
    ) {
        let (entropy, vsid) = {
            let hot = self.datapath.table.hot(id);
            (hot.entropy, hot.vsid)
        };
        let Some(group) = self.datapath.groups.get(usize::from(group)).copied() else {
            return self.drop_packet(bus, d, Reason::NoReceiver, input);
        };
        let v = Variable { inner_len: at.len, ecn: 0, entropy, vsid };
        let base = Descriptor {
            op: Op::Transmit as u8,
            reason: 0,
            flags: 0,
            target: d.port,
            offset: at.start as u16,
            len: at.len as u16,
            vport: input.bits(),
            ..*d
        };
        let mut sent = false;
        for &bits in group.members.iter().take(usize::from(group.len)) {
            let copy = match Member::from_bits(bits) {
                Member::Tunnel(index) => {
                    let Some((len, uplink)) = self.datapath.replicate_header(index, &v, bus.header()) else {
                        self.datapath.count_drop(Reason::NextHopUnresolved, input);
                        continue;
                    };
                    Descriptor { port: BoardPort::Uplink(uplink).bits(), header_len: len as u16, ..base }
                }
                Member::Port(port) if port == input => continue,
                Member::Port(port) => match self.output(port, at.dst_mac) {
                    Ok(to) => {
                        self.count(Port::None, port, 0, at.len);
                        Descriptor { port: to.bits(), header_len: 0, ..base }
                    }
                    Err(reason) => {
                        self.datapath.count_drop(reason, input);
                        continue;
                    }
                },
            };
            bus.send(&copy);
            sent = true;
        }
        self.count(input, Port::None, usize::from(d.len), 0);
        if !sent {
            self.datapath.count_drop(Reason::NoReceiver, input);
        }
        // The buffer goes back behind the last copy: the board reads the ring in order.
        if d.buffer != NO_BUFFER {
            let reason = if sent { 0 } else { Reason::NoReceiver as u8 };
            bus.send(&Descriptor { op: Op::Complete as u8, reason, flags: RELEASE, cookie: 0, ..*d });
        }
    }
}

/// Where a packet once came in, in the board's numbering. The host names ports of the data path, whose numbers are those of
/// other VFs there.
pub(crate) fn origin(d: &Descriptor) -> u16 {
    if d.op == Op::Frame as u8 { d.port } else { BoardPort::Queue(QUEUE_COMMAND as u8).bits() }
}

/// The frame that a descriptor names.
#[inline(always)]
fn packet<'b>(bus: &'b mut impl Bus, d: &Descriptor) -> Option<Frame<'b>> {
    let buffer = bus.buffer(d.buffer)?;
    Frame::new(buffer, usize::from(d.offset), usize::from(d.len))
}
