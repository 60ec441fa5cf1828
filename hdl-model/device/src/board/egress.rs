//! The firmware's descriptors: frames to VFs, uplinks and the host, drops, completions.

use culvert_abi::command::Op;
use culvert_abi::pf::{Entry, OffloadBits};
use culvert_abi::regs::{QUEUE_CAPTURE, QUEUE_COMPLETION, QUEUE_UPCALL};
use culvert_abi::soc::{BoardPort, CAPTURE, COPY, Descriptor, NO_BUFFER, RELEASE};
use culvert_flow::Port;
use culvert_packet::Reason;

use super::datapath::Datapath;
use super::pf_ring::Owner;
use crate::soc::FromFirmware;
use crate::virtio::{Delivery, RxError};

/// Descriptors executed before others have their turn.
const BURST: usize = 128;
/// Bytes of a TCP control segment that the host gets to see.
const COPY_LEN: usize = 192;
/// Descriptors that a VF is charged for each copy of a replicated frame: a broadcast costs as much as its copies.
const COPY_DESCRIPTORS: usize = 8;

impl Datapath {
    /// Executes the firmware's descriptors. Returns whether there were any.
    pub(super) fn execute_descriptors(&mut self) -> bool {
        let mut n = 0;
        while n < BURST
            && let Some(from) = self.link.soc.poll()
        {
            n += 1;
            match from {
                FromFirmware::Good { op, descriptor, .. } => {
                    self.execute(op, &descriptor, &from);
                    if descriptor.flags & RELEASE != 0 && descriptor.buffer != NO_BUFFER {
                        self.link.soc.owners().free(descriptor.buffer);
                    }
                }
                FromFirmware::Bad(descriptor) => {
                    self.registers.counters.drop(BoardPort::None, Reason::BadDescriptor, 1);
                    self.link.soc.owners().free(descriptor.buffer);
                }
            }
        }
        if n > 0 {
            self.link.soc.consumed();
        }
        n > 0
    }

    fn execute(&mut self, op: Op, d: &Descriptor, from: &FromFirmware) {
        match op {
            Op::Transmit => self.transmit(d, from),
            Op::Upcall => self.upcall(d, from),
            Op::Drop => self.registers.counters.port_drop(BoardPort::from_bits(d.port), 1),
            Op::Complete if d.cookie != 0 => {
                let entry = Entry {
                    op: Op::Complete as u8,
                    reason: d.reason,
                    cookie: d.cookie,
                    arg0: d.arg0,
                    arg1: d.arg1,
                    now: d.now,
                    ..Entry::default()
                };
                let bytes = self.link.soc.parts(from).1.to_vec();
                self.host.send(QUEUE_COMPLETION, entry, &[&bytes], Owner::Host);
            }
            _ => {}
        }
    }

    fn transmit(&mut self, d: &Descriptor, from: &FromFirmware) {
        let port = BoardPort::from_bits(d.port);
        if d.flags & COPY != 0 {
            self.copy(QUEUE_UPCALL, d, from, Reason::TcpControl, COPY_LEN);
        }
        if d.flags & CAPTURE != 0 {
            self.copy(QUEUE_CAPTURE, d, from, Reason::Sampled, usize::MAX);
        }
        let owner = Owner::Vport(d.arg0 as u16);
        let (header, frame) = self.link.soc.parts(from);
        let len = header.len() + frame.len();
        if d.flags & RELEASE == 0
            && let BoardPort::Vf(n) = BoardPort::from_bits(d.target)
            && let Some(budget) = self.budgets.get_mut(usize::from(n))
        {
            budget.charge_more(COPY_DESCRIPTORS, len);
        }
        let result = match port {
            BoardPort::Uplink(n) => match self.uplinks.get_mut(usize::from(n)) {
                Some(uplink) => {
                    let sent = uplink.wire.send(header, frame);
                    if sent.is_ok()
                        && let Some(capture) = &mut uplink.capture
                    {
                        capture.frame(header, frame);
                    }
                    sent.map(|()| Delivery::Done)
                }
                None => Err(Reason::UplinkDown),
            },
            BoardPort::Vf(n) => match self.vfs.get(usize::from(n)) {
                Some(vf) => {
                    // The engine has filled in the checksum of a frame from one of its VFs.
                    let verified = d.offload.checksum == OffloadBits::VERIFIED
                        && matches!(BoardPort::from_bits(d.target), BoardPort::Vf(_));
                    vf.rx_push(&[header, frame], verified).map_err(RxError::reason)
                }
                None => Err(Reason::QueueStopped),
            },
            // The board does not wait for a host that is slow on one queue: the others would starve.
            BoardPort::Queue(n) if !self.host.has_room(usize::from(n), owner) => Err(Reason::RingFull),
            BoardPort::Queue(n) => {
                let (header, frame) = (header.to_vec(), frame.to_vec());
                let entry = Entry { op: Op::Transmit as u8, port: d.vport, now: d.now, ..Entry::default() };
                if self.host.send(usize::from(n), entry, &[&header, &frame], owner) {
                    Ok(Delivery::Done)
                } else {
                    Err(Reason::QueueStopped)
                }
            }
            BoardPort::None => Err(Reason::BadDescriptor),
        };
        match result {
            Ok(Delivery::Done) => self.registers.counters.frames_out(port, 1, len as u64),
            // What becomes of it is known later: `settle_queued`.
            Ok(Delivery::Queued) => {}
            Err(reason) => self.count_lost(port, d.arg0 as u16, reason, (1, len as u64)),
        }
        if let (BoardPort::Vf(n), Port::Vport(_)) = (port, Port::from_bits(d.arg0 as u16))
            && let Some(served) = self.vf_vport.get_mut(usize::from(n))
        {
            *served = d.arg0 as u16;
        }
    }

    /// Counts frames that did not leave by a port of the board. Of a vport's frames the firmware is told, which has counted
    /// them as sent.
    fn count_lost(&mut self, port: BoardPort, to: u16, reason: Reason, (frames, bytes): (u64, u64)) {
        self.registers.counters.drop(port, reason, frames);
        if matches!((port, Port::from_bits(to)), (BoardPort::Vf(_) | BoardPort::Queue(_), Port::Vport(_))) {
            self.link.lose(to, frames, bytes);
        }
    }

    /// Counts what has become of frames that were queued for VFs whose memory is not shared.
    pub(super) fn settle_queued(&mut self) {
        for n in 0..self.vfs.len() {
            let (port, vport) = (BoardPort::Vf(n as u8), self.vf_vport[n]);
            let (late, carried) = (self.vfs[n].take_late(), self.vfs[n].counters().by_message);
            let (frames, bytes) = late.delivered;
            self.registers.counters.frames_out(port, frames, bytes);
            for (error, lost) in RxError::ALL.into_iter().zip(late.lost) {
                self.count_lost(port, vport, error.reason(), lost);
            }
            self.registers.counters.set_by_message(port, carried);
        }
    }

    /// A copy for the host. It is left out when too many entries wait for the host's buffers; the packet itself is forwarded.
    fn copy(&mut self, queue: usize, d: &Descriptor, from: &FromFirmware, reason: Reason, limit: usize) {
        // The receiver's share, where the packet came from the wire.
        let owner = match Port::from_bits(d.vport) {
            Port::Vport(_) => Owner::Vport(d.vport),
            _ => Owner::Vport(d.arg0 as u16),
        };
        if !self.host.has_room(queue, owner) {
            return;
        }
        let (header, frame) = self.link.soc.parts(from);
        let mut bytes = [header, frame].concat();
        bytes.truncate(limit);
        let entry = Entry {
            op: Op::Upcall as u8,
            reason: reason as u8,
            port: d.vport,
            target: 1,
            arg1: d.arg1,
            inner: d.inner,
            now: d.now,
            offload: d.offload,
            ..Entry::default()
        };
        self.host.send(queue, entry, &[&bytes], owner);
    }

    fn upcall(&mut self, d: &Descriptor, from: &FromFirmware) {
        let entry = Entry {
            op: Op::Upcall as u8,
            reason: d.reason,
            port: d.vport,
            peer: d.peer,
            ticket: d.ticket,
            inner: d.inner,
            vsid: d.vsid,
            now: d.now,
            offload: d.offload,
            ..Entry::default()
        };
        let origin = BoardPort::from_bits(d.port);
        // A VF is held back by its share; the wire and queue 0 cannot be.
        let owner = match origin {
            BoardPort::Vf(_) | BoardPort::Queue(_) => Owner::Vport(d.vport),
            BoardPort::Uplink(_) | BoardPort::None => Owner::Vsid(if d.inner == 0 { 0 } else { d.vsid }),
        };
        let crowded = !self.host.has_room(QUEUE_UPCALL, owner);
        let full = match origin {
            BoardPort::Vf(_) => false,
            BoardPort::Queue(_) => crowded || !self.shares.has_room(d.vport),
            BoardPort::Uplink(_) | BoardPort::None => crowded,
        };
        // Next hops answer a driver that has not said START yet.
        let decides = self.host.takes_upcalls() || matches!(origin, BoardPort::Uplink(_)) && d.inner == 0;
        let bytes = self.link.soc.parts(from).1.to_vec();
        if !full && decides && self.host.send(usize::from(d.target), entry, &[&bytes], owner) {
            match origin {
                BoardPort::Vf(n) => self.shares.charge(n, d.vport),
                BoardPort::Queue(_) => self.shares.charge_vport(d.vport),
                BoardPort::Uplink(_) | BoardPort::None => return,
            }
            if d.ticket == 0 {
                self.shares.charge_without_ticket(d.vport);
            }
            return;
        }
        // Without a host, that is to say a queue that runs, nothing new can be decided.
        let reason = if full { Reason::UpcallFull } else { Reason::QueueStopped };
        if d.ticket == 0 {
            self.registers.counters.drop(origin, reason, 1);
        } else {
            // The firmware counts it, and the flow's pending record.
            self.registers.counters.port_drop(origin, 1);
            self.link.report_dropped(d.vport, d.ticket, reason);
        }
    }
}
