//! Copies of a broadcast, one for each member of its group.

use culvert_flow::encap::Variable;
use culvert_flow::tables::Member;
use culvert_flow::{Port, RecordId};
use culvert_packet::Reason;

use super::forwarder::Forwarder;
use super::packet::Packet;

impl Forwarder {
    /// Sends a packet that was `len` bytes long to each member of a group, with outer headers of its own.
    pub(super) fn replicate(&mut self, packet: Packet, record: RecordId, group: u16, len: usize) {
        let Some(group) = self.datapath().groups.get(usize::from(group)).copied() else {
            return self.drop(packet, Reason::NoReceiver);
        };
        let input = packet.input;
        let (packets, more) = self.count_segments(&packet, record);
        self.count_input(input, packets, len as u64 + more);
        let hot = self.dp.table.hot(record);
        let v = Variable { inner_len: packet.bytes().len(), ecn: 0, entropy: hot.entropy, vsid: hot.vsid };
        let mut sent = false;
        for &bits in group.members.iter().take(usize::from(group.len)) {
            match Member::from_bits(bits) {
                Member::Port(port) if port == input => {}
                member => match self.copy_to(&packet, member, &v) {
                    Ok(()) => sent = true,
                    Err(reason) => self.dp.count_drop(reason, input),
                },
            }
        }
        if !sent {
            self.dp.count_drop(Reason::NoReceiver, input);
        }
        self.pool.give(packet);
    }

    fn copy_to(&mut self, packet: &Packet, member: Member, v: &Variable) -> Result<(), Reason> {
        let mut outer = [0; culvert_packet::MAX_OUTER];
        let (header, to) = match member {
            Member::Port(port) => (&outer[..0], port),
            Member::Tunnel(index) => {
                let made = self.dp.replicate_header(index, v, &mut outer);
                let (len, uplink) = made.ok_or(Reason::NextHopUnresolved)?;
                (&outer[..len], Port::Uplink(uplink))
            }
        };
        let way = self.way(to)?;
        let mut copy = self.pool.take_for(packet.bytes().len()).ok_or(Reason::NoBuffer)?;
        (copy.input, copy.checksum, copy.offload) = (packet.input, packet.checksum, packet.offload);
        // There is room: a buffer has headroom for any outer headers.
        if !(copy.fill(packet.bytes()) && copy.prepend(header)) {
            self.pool.give(copy);
            return Err(Reason::NoBuffer);
        }
        self.put(copy, to, way);
        Ok(())
    }
}
