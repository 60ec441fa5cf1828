//! Upcalls of a forwarder: packets, and copies of packets, for the slow path.

use culvert_flow::pending::Ticket;
use culvert_flow::{Actions, Classified, RecordId};
use culvert_offload::{ControlCopy, Upcall, UpcallMeta};
use culvert_packet::{Offload, Reason};

use crate::forwarder::Forwarder;
use crate::packet::Packet;

impl Forwarder {
    /// Gives a packet to the slow path.
    pub(super) fn punt(
        &mut self,
        packet: Packet,
        reason: Reason,
        ticket: Option<Ticket>,
        classified: Option<Classified>,
    ) {
        let meta = UpcallMeta {
            reason,
            ticket: ticket.map(|ticket| self.tickets.export(ticket)),
            peer: classified.map_or(0, |c| c.outer.peer),
            ..self.meta(&packet)
        };
        let input = packet.input;
        self.dp.counters.punted += 1;
        if self.upcalls.send(Upcall::new(meta, packet.bytes().to_vec(), classified)) {
            self.pool.give(packet);
        } else {
            self.drop(packet, Reason::UpcallFull);
            // The slow path, which does not see this packet, would complete the upcall.
            self.complete_upcall(input, ticket);
        }
    }

    /// Gives the slow path a copy of a TCP segment that leaves by `record`.
    pub(super) fn copy(&mut self, packet: &Packet, record: RecordId) {
        let hot = self.dp.table.hot(record);
        let pushed = hot.actions().contains(Actions::PUSH_OUTER);
        let tunnel = self.dp.tunnels.get(usize::from(hot.tunnel)).filter(|_| pushed);
        let copy = ControlCopy {
            connection: self.dp.table.cold(record).connection,
            outer_len: tunnel.map_or(0, |t| u16::from(t.header_len)),
        };
        let meta = UpcallMeta { reason: Reason::TcpControl, copy: Some(copy), ..self.meta(packet) };
        if !self.upcalls.send(Upcall::parse(meta, packet.bytes().to_vec())) {
            // The packet itself is forwarded. A connection whose end was not seen ends by its time-out.
            self.dp.counters.drops[Reason::UpcallFull as usize] += 1;
        }
    }

    fn meta(&self, packet: &Packet) -> UpcallMeta {
        let Offload { checksum, gso, mss, .. } = packet.offload;
        UpcallMeta {
            reason: Reason::Miss,
            input: packet.input,
            ticket: None,
            copy: None,
            peer: 0,
            now: self.now,
            offload: Offload { checksum, gso, mss, ..Offload::default() },
        }
    }
}
