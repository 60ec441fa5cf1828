//! Upcalls of a worker: packets, and copies of packets, for the slow path.

use culvert_flow::pending::Ticket;
use culvert_flow::{Actions, Classified, Datapath, Port, RecordId};
use culvert_offload::{ControlCopy, Upcall, UpcallMeta};
use culvert_packet::{Offload, Reason, VportId};

use crate::packet::Packet;
use crate::tickets::TicketRange;
use crate::upcall_queue::{Charge, Kind, UpcallTx};
use crate::work;

/// A worker's end of the upcall queue, and the tickets that its upcalls carry.
pub(super) struct Upcalls {
    queue: UpcallTx,
    pub(super) tickets: TicketRange,
}

impl Upcalls {
    pub(super) fn new(queue: UpcallTx, tickets: TicketRange) -> Self {
        Upcalls { queue, tickets }
    }

    /// Whether a vport has used its share: the worker does not poll it until packets of it come back.
    pub(super) fn is_used_up(&self, at: Port) -> bool {
        self.queue.is_used_up(at)
    }

    /// Whether a turn of a vport has room in the queue.
    #[inline]
    pub(super) fn has_room(&self, vport: VportId) -> bool {
        self.queue.has_room(vport)
    }

    /// Sends a packet up, at the expense of a vport. `false`: there is no room.
    pub(super) fn punt(
        &mut self,
        packet: &Packet,
        vport: u16,
        reason: Reason,
        ticket: Option<Ticket>,
        classified: Option<Classified>,
        now: u32,
    ) -> bool {
        let meta = UpcallMeta {
            ticket: ticket.map(|ticket| self.tickets.export(ticket)),
            peer: classified.map_or(0, |c| c.outer.peer),
            ..meta(packet, reason, now)
        };
        let kind = match (packet.input, reason) {
            (Port::Vport(_), _) => Kind::Guest,
            (_, Reason::Control) => Kind::Control,
            _ => Kind::Wire,
        };
        let charge = Charge { kind, vport, work: work::of_packet(packet) };
        self.queue.send(Upcall::new(meta, packet.bytes().to_vec(), classified), charge)
    }

    /// Sends up a copy of a TCP segment that leaves by `record`, at the expense of a vport. `false`: there is no room.
    pub(super) fn copy(
        &mut self,
        dp: &Datapath<'static>,
        packet: &Packet,
        vport: u16,
        record: RecordId,
        now: u32,
    ) -> bool {
        let hot = dp.table.hot(record);
        let pushed = hot.actions().contains(Actions::PUSH_OUTER);
        let tunnel = dp.tunnels.get(usize::from(hot.tunnel)).filter(|_| pushed);
        let copy = ControlCopy {
            connection: dp.table.cold(record).connection,
            outer_len: tunnel.map_or(0, |t| u16::from(t.header_len)),
        };
        let meta = UpcallMeta { copy: Some(copy), ..meta(packet, Reason::TcpControl, now) };
        let charge = Charge { kind: Kind::Copy, vport, work: work::of_packet(packet) };
        self.queue.send(Upcall::parse(meta, packet.bytes().to_vec()), charge)
    }

    /// Wakes the slow path if it sleeps and there are upcalls. Called after each burst.
    pub(super) fn notify(&self) {
        self.queue.notify();
    }

    /// Another worker serves a port from now on, and gets what comes back of its packets.
    pub(super) fn forget(&mut self, at: Port) {
        self.queue.forget(at);
    }

    /// A packet of a port has come back from the slow path.
    pub(super) fn complete(&mut self, input: Port) {
        self.queue.complete(input);
    }
}

fn meta(packet: &Packet, reason: Reason, now: u32) -> UpcallMeta {
    let Offload { checksum, gso, mss, .. } = packet.offload;
    UpcallMeta {
        reason,
        input: packet.input,
        ticket: None,
        copy: None,
        peer: 0,
        now,
        offload: Offload { checksum, gso, mss, ..Offload::default() },
    }
}
