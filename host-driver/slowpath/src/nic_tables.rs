//! The tables that a NIC holds for a policy: [`NicTables`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use culvert_flow::FlowRecord;
use culvert_flow::tables::{GROUP_MEMBERS, Group, Peer, Vport};
use culvert_offload::{FdbEntry, Generation, GenerationWrite, VfConfig, VmqFilter};
use culvert_packet::{MacAddr, VportId};
use culvert_policy::Snapshot;
use culvert_policy::snapshot::{self, Target};

use crate::underlay::{LocalPa, TunnelPath};

/// The tables that a NIC holds for a policy, except what depends on the MACs of next hops.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NicTables {
    /// Number of this host.
    pub host: u16,
    /// The distributed router's MAC.
    pub router_mac: MacAddr,
    /// Our provider addresses.
    pub local_pas: Vec<LocalPa>,
    /// Tunnels, before their next hops are resolved.
    pub tunnels: Vec<TunnelPath>,
    /// Other hosts' provider addresses.
    pub peers: Vec<Peer>,
    /// Vports, by number.
    pub vports: Vec<(u16, Vport)>,
    /// Configurations of VFs, by number.
    pub vfs: Vec<(u16, VfConfig)>,
    /// Replication groups, by index.
    pub groups: Vec<(u16, Group)>,
    /// VMQ filters.
    pub vmq_filters: Vec<VmqFilter>,
    /// FDB: the vport of each VSID and MAC.
    pub fdb: Vec<FdbEntry>,
    /// Generations of mappings. Those of vports are in `vports`.
    pub mapping_generations: Vec<GenerationWrite>,
}

impl NicTables {
    /// The tables of a policy. A vport without a quota of its own may have `default_quota` flow records.
    pub fn new(snapshot: &Snapshot, default_quota: u32) -> Self {
        let mut tables =
            NicTables { host: snapshot.host, router_mac: snapshot.router_mac, ..NicTables::default() };
        tables.local_pas = snapshot
            .local_pas
            .iter()
            .map(|pa| LocalPa { addr: pa.addr, mac: pa.mac, uplink: pa.uplink, vlan: pa.vlan })
            .collect();
        tables.tunnels = snapshot.tunnels.values().map(|spec| TunnelPath::new(snapshot, spec)).collect();
        let entries = |(&index, peer): (&u16, &snapshot::Peer)| {
            peer.pas.iter().map(|addr| peer_entry(*addr, index)).collect()
        };
        tables.peers = snapshot.peers.iter().flat_map::<Vec<_>, _>(entries).collect();
        for (&id, vport) in &snapshot.vports {
            tables.add_vport(id, vport, default_quota);
        }
        for (&index, spec) in &snapshot.groups {
            let mut group = Group::default();
            for (entry, member) in group.members.iter_mut().zip(&spec.members) {
                *entry = member.bits();
            }
            // The policy does not offload larger groups; the first members are all that fit.
            group.len = spec.members.len().min(GROUP_MEMBERS) as u16;
            tables.groups.push((index, group));
        }
        // Mappings that share a cell share its generation.
        let cells: BTreeMap<u16, u32> = snapshot.mappings.iter().map(|m| (m.cell, m.generation)).collect();
        let write = |(cell, value)| GenerationWrite { of: Generation::Mapping(cell), value };
        tables.mapping_generations = cells.into_iter().map(write).collect();
        tables
    }

    fn add_vport(&mut self, id: VportId, vport: &snapshot::Vport, default_quota: u32) {
        let (target, number) = match vport.target {
            Target::Vf(n) => {
                let link_up = vport.up;
                self.vfs.push((n, VfConfig { link_up, ..VfConfig::new(vport.mac, vport.mtu) }));
                (Vport::VF, n)
            }
            Target::Vmq(n) => {
                self.vmq_filters.push(VmqFilter { mac: vport.mac, vsid: vport.vsid, vmq: n, vport: id });
                (Vport::VMQ, n)
            }
            Target::Software => (Vport::SOFTWARE, 0),
        };
        let up = if vport.up { Vport::UP } else { 0 };
        let quota = vport.quota.unwrap_or(default_quota);
        let (vsid, generation) = (vport.vsid, vport.generation);
        let flags = Vport::PRESENT | up;
        let entry = Vport { flags, target, number, vsid, generation, quota, ..Vport::default() };
        self.vports.push((id.0, entry));
        self.fdb.push(FdbEntry { vport: id, vsid, mac: vport.mac });
    }

    /// Mapping generations to write when these tables replace `old`: their own, and the next value for mappings that are
    /// gone, which makes the flows of those stale.
    pub(crate) fn mapping_generations_after(&self, old: &NicTables) -> Vec<GenerationWrite> {
        let mut writes = self.mapping_generations.clone();
        let present: BTreeSet<Generation> = writes.iter().map(|write| write.of).collect();
        let gone = old.mapping_generations.iter().filter(|write| !present.contains(&write.of));
        writes.extend(gone.map(|write| GenerationWrite { value: write.value.wrapping_add(1), ..*write }));
        writes
    }
}

/// The NIC's entry for a provider address of host number `index`.
pub(crate) fn peer_entry(addr: IpAddr, index: u16) -> Peer {
    let mut bytes = [0; 16];
    let family = match addr {
        IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&Ipv4Addr::octets(&v4));
            4
        }
        IpAddr::V6(v6) => {
            bytes = v6.octets();
            6
        }
    };
    Peer { addr: bytes, family, index, reserved: 0 }
}

/// The mapping generations in flow records: those of mappings that the policy no longer has must change.
pub(crate) fn mapping_generations_of(records: &[FlowRecord]) -> Vec<GenerationWrite> {
    let cells: BTreeMap<u16, u32> =
        records.iter().map(|r| (r.hot.map_cell, r.hot.gen_map)).filter(|(cell, _)| *cell != 0).collect();
    let write = |(cell, value)| GenerationWrite { of: Generation::Mapping(cell), value };
    cells.into_iter().map(write).collect()
}
