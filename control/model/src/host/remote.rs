//! The derivation's steps on other hosts: peers, tunnels, broadcast groups, mappings.

use std::collections::{BTreeMap, BTreeSet};

use culvert_flow::Port;
use culvert_flow::tables::Member;
use culvert_packet::{Encap, VportId};
use culvert_policy::snapshot::{self, GroupSpec, Location, Peer, TunnelSpec, cell_of};

use super::config::SnapshotError;
use super::derivation::Derivation;
use crate::fabric::{HostUplink, Interface};

/// Tunnels of a host: a group's member has 15 bits for one.
const MAX_TUNNELS: u16 = 1 << 15;
/// Peers, and groups, of a host.
const MAX_INDICES: u16 = u16::MAX;

impl Derivation<'_> {
    pub(super) fn peers(&mut self) -> Result<(), SnapshotError> {
        let mut others: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (_, interface, network, subnet) in self.reachable() {
            let Some(host) = interface.host.filter(|h| Some(*h) != self.host) else { continue };
            if !seen.insert((host, self.fabric.scope(interface))) {
                continue;
            }
            let vsids = others.entry(host).or_default();
            if self.fabric.settings.distributed_router {
                // A host that routes sends with the destination's VSID.
                vsids.extend(network.subnets.iter().map(|s| s.vsid.get()));
            } else {
                vsids.insert(subnet.vsid.get());
            }
        }
        let key = |host: usize| self.fabric.hosts[host].name.to_ascii_lowercase();
        let all: Vec<usize> = others.keys().copied().chain(self.host).collect();
        self.indices.peers.keep(&all.iter().map(|h| key(*h)).collect());
        for host in all {
            let index = self.indices.peers.number(&key(host), MAX_INDICES);
            let index = index.ok_or(SnapshotError { what: "other hosts", limit: MAX_INDICES })?;
            let Some(vsids) = others.remove(&host) else {
                self.snapshot.host = index;
                continue;
            };
            self.peers.insert(host, index);
            let pas = self.fabric.hosts[host].uplinks.iter().map(|u| u.pa).collect();
            self.snapshot.peers.insert(index, Peer { pas, vsids });
        }
        Ok(())
    }

    pub(super) fn tunnels(&mut self) -> Result<(), SnapshotError> {
        let encaps: BTreeSet<Encap> = self.snapshot.networks.values().map(|n| n.encap).collect();
        let mut wanted = Vec::new();
        for uplink in self.own().into_iter().flat_map(|h| &h.uplinks) {
            for remote in self.peers.keys().flat_map(|h| &self.fabric.hosts[*h].uplinks) {
                for encap in &encaps {
                    wanted.push((tunnel_name(uplink, remote, *encap), uplink, remote, *encap));
                }
            }
        }
        self.indices.tunnels.keep(&wanted.iter().map(|w| w.0.clone()).collect());
        for (name, uplink, remote, encap) in wanted {
            let index = self.indices.tunnels.number(&name, MAX_TUNNELS);
            let index = index.ok_or(SnapshotError { what: "tunnels", limit: MAX_TUNNELS })?;
            let subnet = &self.fabric.provider_subnets[uplink.subnet];
            let far = &self.fabric.provider_subnets[remote.subnet];
            let spec = TunnelSpec {
                index,
                encap,
                local_pa: uplink.pa,
                remote_pa: remote.pa,
                uplink: uplink.number,
                vlan: subnet.vlan,
                mtu: subnet.mtu.min(far.mtu),
            };
            self.snapshot.tunnels.insert(index, spec);
        }
        Ok(())
    }

    /// The tunnel from an uplink of this host to one of another host.
    fn tunnel(&mut self, own: &HostUplink, remote: &HostUplink, encap: Encap) -> Option<u16> {
        self.indices.tunnels.number(&tunnel_name(own, remote, encap), MAX_TUNNELS)
    }

    pub(super) fn groups(&mut self) -> Result<(), SnapshotError> {
        let mut local: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
        for (id, vport) in &self.snapshot.vports {
            local.entry(vport.vsid).or_default().push(Member::Port(Port::Vport(*id)));
        }
        let mut remote: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for (_, interface, _, subnet) in self.reachable() {
            if let Some(host) = interface.host.filter(|h| Some(*h) != self.host) {
                remote.entry(subnet.vsid.get()).or_default().insert(host);
            }
        }
        let names = local.keys().flat_map(|v| [format!("{v} in"), format!("{v} out")]);
        self.indices.groups.keep(&names.collect());
        for (vsid, vports) in local {
            let encap =
                self.snapshot.subnets.get(&vsid).map_or(Encap::Vxlan, |s| self.snapshot.encap(s.rdid));
            let hosts = remote.remove(&vsid).unwrap_or_default();
            let mut out = vports.clone();
            for host in hosts {
                // One copy to each host, from our first uplink to its first. When an uplink fails, the other one takes over
                // its address.
                let (own, far) =
                    (self.own().and_then(|h| h.uplinks.first()), self.fabric.hosts[host].uplinks.first());
                if let (Some(own), Some(far)) = (own, far) {
                    out.extend(self.tunnel(own, far, encap).map(Member::Tunnel));
                }
            }
            let group_in = self.group(&format!("{vsid} in"), vports)?;
            let group_out = if out.len() > 1 { Some(self.group(&format!("{vsid} out"), out)?) } else { None };
            if let Some(subnet) = self.snapshot.subnets.get_mut(&vsid) {
                (subnet.group_in, subnet.group_out) = (Some(group_in), group_out);
            }
        }
        Ok(())
    }

    fn group(&mut self, name: &str, members: Vec<Member>) -> Result<u16, SnapshotError> {
        let index = self.indices.groups.number(name, MAX_INDICES);
        let index = index.ok_or(SnapshotError { what: "broadcast domains", limit: MAX_INDICES })?;
        self.snapshot.groups.insert(index, GroupSpec { index, members });
        Ok(index)
    }

    pub(super) fn mappings(&mut self) {
        let vports: BTreeMap<usize, VportId> = self.vports.iter().map(|v| (v.interface, v.id)).collect();
        for (interface, i, network, subnet) in self.reachable() {
            let location = match (vports.get(&interface), i.host.and_then(|h| self.peers.get(&h)).copied()) {
                (Some(vport), _) => Location::Local(*vport),
                (None, Some(peer)) => match self.tunnels_to(i, network.encap()) {
                    Some(tunnels) => Location::Remote { peer, tunnels },
                    None => continue,
                },
                // It is on no host now.
                (None, None) => continue,
            };
            for ca in &i.addresses {
                self.snapshot.mappings.insert(snapshot::Mapping {
                    rdid: network.rdid,
                    ca: *ca,
                    mac: i.mac,
                    vsid: subnet.vsid.get(),
                    location,
                    generation: 0,
                    cell: cell_of(network.rdid, *ca),
                });
            }
        }
    }

    /// Tunnels from each of our uplinks to the uplink that an interface is pinned to.
    fn tunnels_to(&mut self, interface: &Interface, encap: Encap) -> Option<[u16; 2]> {
        let remote = self.fabric.uplink_of(interface)?;
        let own = self.own()?;
        let first = self.tunnel(own.uplinks.first()?, remote, encap)?;
        let second = own.uplinks.get(1).and_then(|u| self.tunnel(u, remote, encap));
        Some([first, second.unwrap_or(first)])
    }
}

/// Name of a tunnel in the indices.
fn tunnel_name(own: &HostUplink, remote: &HostUplink, encap: Encap) -> String {
    format!("{} {} {} {encap}", own.number, own.pa, remote.pa)
}
