//! Doing a record's work in software, by the same core as the NIC's firmware: for fragments and for packets without a
//! ticket, which the NIC must not get a record for.

use culvert_flow::record::{FlowHot, FlowRecord};
use culvert_flow::tables::{Group, Tunnel};
use culvert_flow::{Applied, Classified, Frame, Port, Replica, Replication, apply_record};
use culvert_packet::segment::Segmentation;
use culvert_packet::{MacAddr, Offload, Reason};

/// Room in front of a frame for outer headers and a VLAN tag.
const HEADROOM: usize = culvert_packet::MAX_OUTER + 8;

/// What became of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// These frames leave by these ports.
    Send(Vec<(Port, Vec<u8>)>),
    /// Nothing.
    Drop(Reason),
}

/// Tunnels and groups as the NIC has them, for packets that it does not forward itself.
#[derive(Default)]
pub struct Software {
    tunnels: Vec<Tunnel>,
    groups: Vec<Group>,
    /// The router's MAC.
    pub router_mac: MacAddr,
}

impl Software {
    /// Writes a tunnel.
    pub fn set_tunnel(&mut self, index: u16, tunnel: Tunnel) {
        set(&mut self.tunnels, index, tunnel);
    }

    /// A tunnel.
    pub fn tunnel(&self, index: u16) -> Option<&Tunnel> {
        self.tunnels.get(usize::from(index)).filter(|t| t.encap != 0)
    }

    /// Writes a group.
    pub fn set_group(&mut self, index: u16, group: Group) {
        set(&mut self.groups, index, group);
    }

    /// A group.
    pub fn group(&self, index: u16) -> Option<&Group> {
        self.groups.get(usize::from(index))
    }

    /// Treats `frame`, which came in at `input`, is classified as `c` and, if the metadata says so, is yet to be cut, as
    /// a NIC with this record would.
    pub fn forward(
        &mut self,
        record: &FlowRecord,
        c: &Classified,
        (input, offload): (Port, &Offload),
        frame: &[u8],
        now: u32,
    ) -> Outcome {
        let mut buffer = vec![0; HEADROOM + frame.len()];
        buffer[HEADROOM..].copy_from_slice(frame);
        let Some(mut packet) = Frame::new(&mut buffer, HEADROOM, frame.len()) else {
            return Outcome::Drop(Reason::NoBuffer);
        };
        let cut = Segmentation::of(frame, offload);
        packet = packet.in_units(cut.map_or(0, |segments| segments.longest()));
        let (mut hot, cold) = (record.hot, &record.cold);
        let applied = apply_record((&mut hot, cold), &mut packet, c, &mut self.tunnels, self.router_mac, now);
        match applied {
            Applied::Forward { to, .. } => Outcome::Send(vec![(to, packet.bytes().to_vec())]),
            Applied::Drop(reason) => Outcome::Drop(reason),
            Applied::Punt(Reason::Ttl) => Outcome::Drop(Reason::TtlExceeded),
            Applied::Punt(reason) => Outcome::Drop(reason),
            Applied::Replicate { group } => self.replicate(group, &hot, input, packet.bytes()),
        }
    }

    fn replicate(&mut self, group: u16, hot: &FlowHot, input: Port, frame: &[u8]) -> Outcome {
        let Some(mut copies) = Replication::new(&self.groups, group, hot, input, frame.len()) else {
            return Outcome::Drop(Reason::GroupMissing);
        };
        let mut outer = [0; culvert_packet::MAX_OUTER];
        let mut sent = Vec::new();
        while let Some(copy) = copies.next_copy(&mut self.tunnels, &mut outer) {
            // A tunnel without a next hop gets none.
            if let Ok(Replica { to, outer_len }) = copy {
                sent.push((to, [outer.get(..outer_len).unwrap_or_default(), frame].concat()));
            }
        }
        if sent.is_empty() { Outcome::Drop(Reason::NoReceiver) } else { Outcome::Send(sent) }
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
