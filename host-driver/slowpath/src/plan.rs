//! What the NIC is to hold for a policy: the numbers and tables of one host's part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use culvert_flow::tables::{GROUP_MEMBERS, Group, Peer, Tunnel, Vport};
use culvert_offload::{FdbEntry, Generation, GenerationWrite, VfConfig, VmqFilter};
use culvert_packet::{Encap, MacAddr, OuterSpec, VlanId, VportId};
use culvert_policy::Snapshot;
use culvert_policy::snapshot::{self, Target};

use crate::next_hop::HopId;
use crate::uplink::LocalPa;

/// The NIC's tables but for what follows from next hops.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The distributed router's MAC.
    pub router_mac: MacAddr,
    /// Our provider addresses.
    pub locals: Vec<LocalPa>,
    /// Tunnels, by index.
    pub ways: Vec<Way>,
    /// Other hosts' provider addresses.
    pub peers: Vec<Peer>,
    /// Vports by number.
    pub vports: Vec<(u16, Vport)>,
    /// What VFs are to be, by number.
    pub vfs: Vec<(u16, VfConfig)>,
    /// Replication groups by index.
    pub groups: Vec<(u16, Group)>,
    /// VMQ filters.
    pub filters: Vec<VmqFilter>,
    /// Which frames from the wire are whose.
    pub fdb: Vec<FdbEntry>,
    /// Generations of mappings. Those of vports are in `vports`.
    pub generations: Vec<GenerationWrite>,
}

impl Plan {
    /// Of a policy, for a NIC on which a vport may have so many flow records, unless the policy says.
    pub fn new(snapshot: &Snapshot, share: u32) -> Self {
        let mut plan = Plan { router_mac: snapshot.router_mac, ..Plan::default() };
        plan.locals = snapshot
            .local_pas
            .iter()
            .map(|pa| LocalPa { addr: pa.addr, mac: pa.mac, uplink: pa.uplink, vlan: pa.vlan })
            .collect();
        plan.ways = snapshot.tunnels.values().map(|spec| way(snapshot, spec)).collect();
        let pas = |(&index, p): (&u16, &snapshot::Peer)| p.pas.iter().map(|a| peer(*a, index)).collect();
        plan.peers = snapshot.peers.iter().flat_map::<Vec<_>, _>(pas).collect();
        for (&id, vport) in &snapshot.vports {
            plan.vport(id, vport, share);
        }
        for (&index, spec) in &snapshot.groups {
            let mut group = Group::default();
            for (slot, member) in group.members.iter_mut().zip(&spec.members) {
                *slot = member.bits();
            }
            // The policy keeps larger ones from the NIC; the group's first members are all that fit.
            group.len = spec.members.len().min(GROUP_MEMBERS) as u16;
            plan.groups.push((index, group));
        }
        let cells: BTreeMap<u16, u32> = snapshot.mappings.iter().map(|m| (m.cell, m.generation)).collect();
        let write = |(cell, value)| GenerationWrite { of: Generation::Mapping(cell), value };
        plan.generations = cells.into_iter().map(write).collect();
        plan
    }

    fn vport(&mut self, id: VportId, vport: &snapshot::Vport, share: u32) {
        let (target, number) = match vport.target {
            Target::Vf(n) => {
                let link_up = vport.up;
                self.vfs.push((n, VfConfig { link_up, ..VfConfig::new(vport.mac, vport.mtu) }));
                (Vport::VF, n)
            }
            Target::Vmq(n) => {
                self.filters.push(VmqFilter { mac: vport.mac, vsid: vport.vsid, vmq: n, vport: id });
                (Vport::VMQ, n)
            }
            Target::Software => (Vport::SOFTWARE, 0),
        };
        let up = if vport.up { Vport::UP } else { 0 };
        let quota = vport.quota.unwrap_or(share);
        let (vsid, generation) = (vport.vsid, vport.generation);
        let flags = Vport::PRESENT | up;
        let entry = Vport { flags, target, number, vsid, generation, quota, ..Vport::default() };
        self.vports.push((id.0, entry));
        self.fdb.push(FdbEntry { vport: id, vsid, mac: vport.mac });
    }

    /// Generations to write when this plan replaces `old`: its own, and other values for mappings that are gone, so that
    /// their flows are decided again.
    pub fn generations_after(&self, old: &Plan) -> Vec<GenerationWrite> {
        let mut all = self.generations.clone();
        let kept: BTreeSet<Generation> = all.iter().map(|write| write.of).collect();
        let gone = old.generations.iter().filter(|write| !kept.contains(&write.of));
        all.extend(gone.map(|write| GenerationWrite { value: write.value.wrapping_add(1), ..*write }));
        all
    }
}

fn way(snapshot: &Snapshot, spec: &snapshot::TunnelSpec) -> Way {
    let local = snapshot.local_pas.iter().find(|pa| pa.addr == spec.local_pa);
    let next_hop = local
        .and_then(|pa| if pa.prefix.contains(spec.remote_pa) { Some(spec.remote_pa) } else { pa.gateway });
    Way {
        index: spec.index,
        uplink: spec.uplink,
        local: spec.local_pa,
        remote: spec.remote_pa,
        next_hop,
        encap: spec.encap,
        vlan: spec.vlan,
        mtu: spec.mtu,
    }
}

/// A tunnel before its next hop is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its index.
    pub index: u16,
    /// The uplink that our address belongs to.
    pub uplink: u8,
    /// Our provider address.
    pub local: IpAddr,
    /// The other host's.
    pub remote: IpAddr,
    /// Whose MAC the frame goes to; none: out of reach.
    pub next_hop: Option<IpAddr>,
    /// How frames are carried.
    pub encap: Encap,
    /// VLAN of the PA network.
    pub vlan: Option<VlanId>,
    /// Largest outer IP packet.
    pub mtu: u16,
}

impl Way {
    /// The next hop of this tunnel, `pa` being the number of our address. Only IPv4 ones can be asked for.
    pub fn hop(&self, pa: u8) -> Option<HopId> {
        match self.next_hop {
            Some(IpAddr::V4(addr)) => Some(HopId { pa, addr }),
            _ => None,
        }
    }

    /// The tunnel, its next hop having this MAC. `None`: the addresses are of different families.
    pub fn tunnel(&self, src_mac: MacAddr, dst_mac: MacAddr, uplink: u8) -> Option<Tunnel> {
        let spec = OuterSpec {
            encap: self.encap,
            src_mac,
            dst_mac,
            vlan: self.vlan,
            src: self.local,
            dst: self.remote,
        };
        let template = spec.template().ok()?;
        // The MTU counts from the outer IP header on.
        let outer = u16::from(template.len - template.ip_offset);
        Some(Tunnel::new(&template, uplink, self.mtu.saturating_sub(outer)))
    }
}

/// An address as the data path has it.
pub fn peer(addr: IpAddr, index: u16) -> Peer {
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
