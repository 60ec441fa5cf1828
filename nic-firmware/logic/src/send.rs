//! Descriptors to the board: transmit, upcall, drop, completion; and the counters of vports.

use culvert_abi::command::Op;
use culvert_abi::regs::{QUEUE_COMMAND, QUEUE_UPCALL};
use culvert_abi::soc::{BoardPort, Descriptor, NO_BUFFER, RELEASE};
use culvert_flow::pending::Ticket;
use culvert_flow::{Actions, Frame, OuterInfo, Port, RecordId};
use culvert_packet::{Reason, VportId};

use crate::bus::Bus;
use crate::firmware::Firmware;

/// Where a frame lies in its buffer after the core has worked on it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) dst_mac: [u8; 6],
}

impl Place {
    pub(crate) fn of(frame: &Frame<'_>) -> Self {
        Place {
            start: frame.start(),
            len: frame.len(),
            dst_mac: frame.bytes().first_chunk().copied().unwrap_or_default(),
        }
    }
}

/// What the host learns with a copy of a packet: its connection, and how many bytes of outer headers it has.
#[derive(Clone, Copy, Default)]
pub(crate) struct CopyInfo {
    connection: u64,
    inner: u16,
}

/// The port that a packet came in by, in the board's numbering. Packets of the host count as its command queue's: the
/// host names ports of the data path, whose numbers are those of VFs on the board.
pub(crate) fn origin(d: &Descriptor) -> u16 {
    if d.op == Op::Frame as u8 { d.port } else { BoardPort::Queue(QUEUE_COMMAND as u8).bits() }
}

/// The frame that a descriptor names.
#[inline(always)]
pub(crate) fn frame_of<'b>(bus: &'b mut impl Bus, d: &Descriptor) -> Option<Frame<'b>> {
    let buffer = bus.buffer(d.buffer)?;
    Frame::new(buffer, usize::from(d.offset), usize::from(d.len))
}

impl Firmware<'_> {
    /// Sends a frame out of one port, and releases its buffer.
    #[inline(never)]
    pub(crate) fn transmit(
        &mut self,
        bus: &mut impl Bus,
        d: &Descriptor,
        input: Port,
        to: Port,
        at: Place,
        flags: u16,
        copy: CopyInfo,
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
            arg0: u32::from(to.bits()),
            arg1: copy.connection,
            inner: copy.inner,
            ..*d
        });
    }

    /// What the host learns with a copy of a packet that `record` forwards.
    #[cold]
    pub(crate) fn copy_info(&self, record: RecordId) -> CopyInfo {
        let hot = self.datapath.table.hot(record);
        let pushed = hot.actions().contains(Actions::PUSH_OUTER);
        let tunnel = self.datapath.tunnels.get(usize::from(hot.tunnel)).filter(|_| pushed);
        CopyInfo {
            connection: self.datapath.table.cold(record).connection,
            inner: tunnel.map_or(0, |t| u16::from(t.header_len)),
        }
    }

    /// Counts a packet for the vports that it came from and goes to.
    pub(crate) fn count(&mut self, input: Port, to: Port, received: usize, sent: usize) {
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

    /// The board could not deliver frames that were counted as sent to a vport. It counts them by reason itself.
    #[cold]
    pub(crate) fn lost(&mut self, d: &Descriptor) {
        let frames = u64::from(d.arg0);
        if let Port::Vport(VportId(n)) = Port::from_bits(d.port)
            && let Some(vport) = self.datapath.vports.get_mut(usize::from(n))
        {
            vport.drops += frames;
            vport.tx_packets = vport.tx_packets.saturating_sub(frames);
            vport.tx_bytes = vport.tx_bytes.saturating_sub(d.arg1);
        }
    }

    /// Sends a packet to the host.
    #[cold]
    pub(crate) fn upcall(
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
        Self::send_drop(bus, d, reason);
    }

    /// Releases the buffer of a dropped packet.
    #[cold]
    pub(crate) fn send_drop(bus: &mut impl Bus, d: &Descriptor, reason: Reason) {
        let port = origin(d);
        bus.send(&Descriptor { op: Op::Drop as u8, reason: reason as u8, flags: RELEASE, port, ..*d });
    }

    /// Completes a host command: the buffer goes back, with `len` bytes of reply in it.
    pub(crate) fn complete(bus: &mut impl Bus, d: &Descriptor, reason: Option<Reason>, len: u16, arg0: u32) {
        if d.cookie == 0 && d.buffer == NO_BUFFER {
            return;
        }
        bus.send(&Descriptor {
            op: Op::Complete as u8,
            reason: reason.map_or(0, |r| r as u8),
            flags: RELEASE,
            len,
            arg0,
            ..*d
        });
    }
}
