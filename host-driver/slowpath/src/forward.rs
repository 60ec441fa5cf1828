//! Software forwarding: applies a flow record to a packet that the NIC does not forward itself, such as a fragment or a
//! packet without a ticket. It uses the code of the NIC's firmware.

use culvert_flow::record::{FlowHot, FlowRecord};
use culvert_flow::tables::{Group, Tunnel};
use culvert_flow::{Applied, Classified, Frame, Port, Replica, Replication, apply_record};
use culvert_packet::segment::Segmentation;
use culvert_packet::{MacAddr, Offload, Reason};

/// Room in front of a frame for outer headers and a VLAN tag.
const HEADROOM: usize = culvert_packet::MAX_OUTER + 8;

/// The outcome of software forwarding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForwardOutcome {
    /// Send each frame out of its port.
    Send(Vec<(Port, Vec<u8>)>),
    /// Drop the packet.
    Drop(Reason),
}

/// Applies flow records in software, with a copy of the NIC's tunnels and groups.
#[derive(Default)]
pub(crate) struct SoftwareForwarder {
    tunnels: Vec<Tunnel>,
    groups: Vec<Group>,
    router_mac: MacAddr,
}

impl SoftwareForwarder {
    /// Sets the distributed router's MAC.
    pub(crate) fn set_router_mac(&mut self, mac: MacAddr) {
        self.router_mac = mac;
    }

    /// Writes a tunnel.
    pub(crate) fn set_tunnel(&mut self, index: u16, tunnel: Tunnel) {
        set(&mut self.tunnels, index, tunnel);
    }

    /// A tunnel that is written.
    pub(crate) fn tunnel(&self, index: u16) -> Option<&Tunnel> {
        self.tunnels.get(usize::from(index)).filter(|t| t.encap != 0)
    }

    /// Writes a group.
    pub(crate) fn set_group(&mut self, index: u16, group: Group) {
        set(&mut self.groups, index, group);
    }

    /// A group.
    pub(crate) fn group(&self, index: u16) -> Option<&Group> {
        self.groups.get(usize::from(index))
    }

    /// Forwards a frame from `input` as a NIC with this record would. `c` is its classification; `offload` says what
    /// checksums and segmentation it still needs.
    pub(crate) fn forward(
        &mut self,
        record: &FlowRecord,
        c: &Classified,
        (input, offload): (Port, &Offload),
        frame: &[u8],
        now: u32,
    ) -> ForwardOutcome {
        let mut buffer = vec![0; HEADROOM + frame.len()];
        buffer[HEADROOM..].copy_from_slice(frame);
        let Some(mut packet) = Frame::new(&mut buffer, HEADROOM, frame.len()) else {
            return ForwardOutcome::Drop(Reason::NoBuffer);
        };
        let segments = Segmentation::of(frame, offload);
        packet = packet.in_units(segments.map_or(0, |segments| segments.longest()));
        let (mut hot, cold) = (record.hot, &record.cold);
        let applied = apply_record((&mut hot, cold), &mut packet, c, &mut self.tunnels, self.router_mac, now);
        match applied {
            Applied::Forward { to, .. } => ForwardOutcome::Send(vec![(to, packet.bytes().to_vec())]),
            Applied::Drop(reason) => ForwardOutcome::Drop(reason),
            Applied::Punt(Reason::Ttl) => ForwardOutcome::Drop(Reason::TtlExceeded),
            Applied::Punt(reason) => ForwardOutcome::Drop(reason),
            Applied::Replicate { group } => self.replicate(group, &hot, input, packet.bytes()),
        }
    }

    fn replicate(&mut self, group: u16, hot: &FlowHot, input: Port, frame: &[u8]) -> ForwardOutcome {
        let Some(mut copies) = Replication::new(&self.groups, group, hot, input, frame.len()) else {
            return ForwardOutcome::Drop(Reason::GroupMissing);
        };
        let mut outer = [0; culvert_packet::MAX_OUTER];
        let mut sent = Vec::new();
        while let Some(copy) = copies.next_copy(&mut self.tunnels, &mut outer) {
            // A tunnel without a next hop is skipped.
            if let Ok(Replica { to, outer_len }) = copy {
                sent.push((to, [outer.get(..outer_len).unwrap_or_default(), frame].concat()));
            }
        }
        if sent.is_empty() { ForwardOutcome::Drop(Reason::NoReceiver) } else { ForwardOutcome::Send(sent) }
    }
}

fn set<T: Default + Clone>(table: &mut Vec<T>, index: u16, item: T) {
    let index = usize::from(index);
    if table.len() <= index {
        table.resize(index + 1, T::default());
    }
    table[index] = item;
}

#[cfg(test)]
mod tests;
