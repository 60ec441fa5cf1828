//! Doing a record's work in software, by the same core as the NIC's firmware: for fragments and for packets without a
//! ticket, which the NIC must not get a record for.

use culvert_abi::pf;
use culvert_flow::encap::Variable;
use culvert_flow::pending::Pending;
use culvert_flow::record::{FlowCold, FlowHot, FlowKey, FlowRecord};
use culvert_flow::table::{Bucket, FlowTable, TableMemory, WAYS};
use culvert_flow::tables::{Group, Member, Peers, Tunnel};
use culvert_flow::{Classified, Datapath, Frame, HashSecret, Port, Verdict};
use culvert_packet::{ChecksumState, Gso, MacAddr, Offload, Reason};

use crate::switch::segment::Segmentation;

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
        (input, offload): (Port, &pf::OffloadBits),
        frame: &[u8],
        now: u32,
    ) -> Outcome {
        let mut buffer = vec![0; HEADROOM + frame.len()];
        buffer[HEADROOM..].copy_from_slice(frame);
        let Some(mut packet) = Frame::new(&mut buffer, HEADROOM, frame.len()) else {
            return Outcome::Drop(Reason::NoBuffer);
        };
        let cut = Segmentation::of(frame, &known(offload));
        packet = packet.in_units(cut.map_or(0, |segments| segments.longest()));
        let (mut buckets, mut keys) = ([Bucket::default()], [FlowKey::default(); WAYS]);
        let (mut hot, mut cold) = ([FlowHot::default(); WAYS], [FlowCold::default(); WAYS]);
        let memory = TableMemory { buckets: &mut buckets, keys: &mut keys, hot: &mut hot, cold: &mut cold };
        let Ok(table) = FlowTable::new(memory, HashSecret([0; 9])) else {
            return Outcome::Drop(Reason::NoBuffer);
        };
        let mut datapath = Datapath {
            table,
            pending: Pending::new(&mut [], &mut [], 0),
            tunnels: &mut self.tunnels,
            groups: &mut self.groups,
            peers: Peers::new(&mut []),
            vports: &mut [],
            map_cells: &mut [],
            router_mac: self.router_mac,
            counters: culvert_flow::datapath::Counters::default(),
        };
        let id = match datapath.install(record, now) {
            Ok(id) => id,
            Err(refused) => return Outcome::Drop(refused.0),
        };
        match datapath.apply(id, &mut packet, c, now) {
            Verdict::Forward { to, .. } => Outcome::Send(vec![(to, packet.bytes().to_vec())]),
            Verdict::Drop { reason } => Outcome::Drop(reason),
            Verdict::Punt { reason: Reason::Ttl, .. } => Outcome::Drop(Reason::TtlExceeded),
            Verdict::Punt { reason, .. } => Outcome::Drop(reason),
            Verdict::Wait | Verdict::Answer => Outcome::Drop(Reason::BadDescriptor),
            Verdict::Replicate { group, .. } => {
                let v = Variable {
                    inner_len: packet.len(),
                    ecn: 0,
                    entropy: record.hot.entropy,
                    vsid: record.hot.vsid,
                };
                replicate(&mut datapath, group, &v, input, packet.bytes())
            }
        }
    }
}

fn replicate(datapath: &mut Datapath<'_>, group: u16, v: &Variable, input: Port, frame: &[u8]) -> Outcome {
    let Some(group) = datapath.groups.get(usize::from(group)).copied() else {
        return Outcome::Drop(Reason::GroupMissing);
    };
    let mut copies = Vec::new();
    for &bits in group.members.iter().take(usize::from(group.len)) {
        match Member::from_bits(bits) {
            Member::Tunnel(index) => {
                let mut outer = [0; culvert_packet::MAX_OUTER];
                if let Some((len, uplink)) = datapath.replicate_header(index, v, &mut outer) {
                    copies.push((Port::Uplink(uplink), [&outer[..len], frame].concat()));
                }
            }
            Member::Port(port) if port == input => {}
            Member::Port(port) => copies.push((port, frame.to_vec())),
        }
    }
    if copies.is_empty() { Outcome::Drop(Reason::NoReceiver) } else { Outcome::Send(copies) }
}

/// Adds up a checksum that the sender left to hardware, so that the frame can leave by any way.
///
/// # Errors
/// The metadata does not fit the frame.
pub fn complete(offload: &pf::OffloadBits, frame: &mut [u8]) -> Result<(), Reason> {
    if known(offload).fill_checksum(frame) { Ok(()) } else { Err(Reason::BadDescriptor) }
}

/// What an entry of a ring says of a packet, in the core's terms.
pub fn known(said: &pf::OffloadBits) -> Offload {
    Offload {
        checksum: ChecksumState::from_u8(said.checksum).unwrap_or_default(),
        gso: Gso::from_u8(said.gso).unwrap_or_default(),
        mss: said.mss,
        start: said.start,
        offset: said.offset,
        ..Offload::default()
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
