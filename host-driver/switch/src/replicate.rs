//! Copies of a broadcast, one for each member of its group.

use culvert_flow::{Port, RecordId, Replica};
use culvert_packet::Reason;

use crate::forwarder::RESERVE;
use crate::output::Output;
use crate::packet::Packet;
use crate::port_table::Egress;

impl Output {
    /// Sends a packet that was `len` bytes long to each member of a group, with outer headers of its own.
    pub(super) fn replicate(&mut self, packet: Packet, record: RecordId, group: u16, len: usize, now: u32) {
        let (input, inner_len) = (packet.input, packet.bytes().len());
        let Some(mut copies) = self.dp.replication(record, group, input, inner_len) else {
            return self.drop(packet, Reason::NoReceiver);
        };
        let (packets, more) = self.count_segments(&packet, record);
        self.count_input(input, packets, len as u64 + more);
        let mut outer = [0; culvert_packet::MAX_OUTER];
        let mut sent = false;
        while let Some(copy) = copies.next_copy(self.dp.tunnels, &mut outer) {
            let done = copy.and_then(|Replica { to, outer_len }| {
                self.spare_buffers(now);
                self.copy_to(&packet, to, outer.get(..outer_len).unwrap_or_default())
            });
            match done {
                Ok(()) => sent = true,
                Err(reason) => self.dp.count_drop(reason, input),
            }
        }
        if !sent {
            self.dp.count_drop(Reason::NoReceiver, input);
        }
        self.pool.give(packet);
    }

    /// Sends queued copies early rather than use up the buffers: the burst may have other vports' packets, too.
    fn spare_buffers(&mut self, now: u32) {
        if self.pool.common() <= self.pool.count() as usize / 2 {
            self.flush(now);
        }
    }

    fn copy_to(&mut self, packet: &Packet, to: Port, outer: &[u8]) -> Result<(), Reason> {
        let egress = self.egress(to)?;
        let charged_vport = Self::charged_vport(packet.input, to);
        if matches!(egress, Egress::Remote(_)) && !self.handoff.has_share(charged_vport, self.pool.common()) {
            return Err(Reason::WorkerFull);
        }
        // The reserve is for packets that are somewhere else already, and come back.
        let spare = Some(()).filter(|()| self.pool.common() > RESERVE / 2);
        let mut copy =
            spare.and_then(|()| self.pool.take_for(packet.bytes().len())).ok_or(Reason::NoBuffer)?;
        (copy.input, copy.checksum, copy.offload) = (packet.input, packet.checksum, packet.offload);
        // There is room: a buffer has headroom for any outer headers.
        if !(copy.fill(packet.bytes()) && copy.prepend(outer)) {
            self.pool.give(copy);
            return Err(Reason::NoBuffer);
        }
        self.enqueue(copy, to, egress);
        Ok(())
    }
}
