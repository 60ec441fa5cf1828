//! Packets, and copies of them, that go up to the slow path.

use culvert_abi::command::Op;
use culvert_abi::pf::{self, Entry};
use culvert_flow::pending::Ticket;
use culvert_flow::{Actions, OuterInfo, RecordId};
use culvert_packet::{Offload, Reason};

use super::forwarder::Forwarder;
use super::packet::Packet;

impl Forwarder {
    pub(super) fn punt(&mut self, packet: Packet, reason: Reason, ticket: Option<Ticket>, outer: OuterInfo) {
        let entry = Entry {
            reason: reason as u8,
            ticket: ticket.map_or(0, |ticket| self.shown(ticket).bits()),
            peer: outer.peer,
            inner: outer.inner,
            vsid: outer.vsid,
            ..self.entry(&packet)
        };
        let input = packet.input;
        self.dp.counters.punted += 1;
        if self.exceptions.give(&entry, packet.bytes().to_vec()) {
            self.pool.give(packet);
        } else {
            self.drop(packet, Reason::UpcallFull);
            // As the slow path would do, which does not get to know of it.
            self.returned(input, ticket);
        }
    }

    /// Shows the slow path a TCP segment that goes by `record`, as it leaves.
    pub(super) fn copy(&mut self, packet: &Packet, record: RecordId) {
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
            self.dp.counters.drops[Reason::UpcallFull as usize] += 1;
        }
    }

    fn entry(&self, packet: &Packet) -> Entry {
        let Offload { checksum, gso, mss, .. } = packet.offload;
        Entry {
            op: Op::Upcall as u8,
            port: packet.input.bits(),
            len: packet.bytes().len() as u32,
            now: self.now,
            offload: pf::OffloadBits {
                checksum: checksum as u8,
                gso: gso as u8,
                mss,
                ..pf::OffloadBits::default()
            },
            ..Entry::default()
        }
    }

    /// A ticket as others see it: those of all workers differ.
    fn shown(&self, ticket: Ticket) -> Ticket {
        Ticket { slot: ticket.slot + self.first_ticket, ..ticket }
    }

    /// A ticket of ours as it was shown.
    pub(super) fn ticket(&self, bits: u32) -> Option<Ticket> {
        let shown = Ticket::from_bits(bits)?;
        Some(Ticket { slot: shown.slot.checked_sub(self.first_ticket)?, ..shown })
    }
}
