//! One host's configuration of the fabric, as the policy engine wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use culvert_api::{Offload, Protocol};
use culvert_flow::tables::Member;
use culvert_flow::{HashSecret, Port};
use culvert_packet::{Encap, VportId};
use culvert_policy::snapshot::{
    self, GroupSpec, LocalPa, Location, Peer, Snapshot, Target, TunnelSpec, cell_of,
};
use thiserror::Error;

use crate::acl::acl_sets;
use crate::fabric::{Host, HostUplink, Interface, Network, Subnet};
use crate::indices::fingerprint;
use crate::{Fabric, Indices};

/// How many tunnels there can be, so that a group's member fits 16 bits beside a port.
const TUNNELS: u16 = 1 << 15;
/// How many hosts and groups.
const OTHERS: u16 = u16::MAX;

/// What a host has, whatever the policy.
#[derive(Clone, Debug)]
pub struct Site {
    /// The host's name: its server's resource id.
    pub host: String,
    /// Secret of the entropy that is shown on the wire.
    pub entropy: HashSecret,
    /// Virtual functions of its NIC.
    pub vfs: u16,
    /// Receive queues of its NIC. Without these and virtual functions, ports of the software path serve all interfaces.
    pub vmqs: u16,
}

/// What one host carries out.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The whole policy.
    pub fabric: Arc<Fabric>,
    /// Index of this host in it; none: the policy does not know this host.
    pub host: Option<usize>,
    /// The interfaces that are on this host.
    pub vports: Vec<LocalVport>,
    /// What the policy engine and the NIC need.
    pub snapshot: Arc<Snapshot>,
}

/// An interface on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalVport {
    /// Its number.
    pub id: VportId,
    /// Index into [`Fabric::interfaces`].
    pub interface: usize,
    /// What serves it.
    pub target: Target,
}

/// More of something than a host has room for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this host needs more than {limit} {what}")]
pub struct SnapshotError {
    /// What there is too much of.
    pub what: &'static str,
    /// How many there can be.
    pub limit: u16,
}

impl SnapshotError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        format!("place the virtual machines so that each host needs at most {} {}", self.limit, self.what)
    }
}

/// Derives this host's configuration. Numbers come from and go to `indices`, which the caller persists before it applies the
/// configuration.
///
/// # Errors
/// The host runs out of numbers.
pub fn host_config(
    fabric: Arc<Fabric>,
    site: &Site,
    indices: &mut Indices,
) -> Result<HostConfig, SnapshotError> {
    let host = fabric.host(&site.host);
    let snapshot = Snapshot::empty(fabric.settings.router_mac, site.entropy);
    let mut derivation = Derivation {
        fabric: &fabric,
        site,
        host,
        indices,
        vports: Vec::new(),
        hosts: BTreeMap::new(),
        snapshot,
    };
    derivation.vports()?;
    derivation.networks();
    derivation.underlay();
    derivation.peers()?;
    derivation.tunnels()?;
    derivation.groups()?;
    derivation.mappings();
    derivation.generations();
    let Derivation { vports, snapshot, .. } = derivation;
    Ok(HostConfig { fabric, host, vports, snapshot: Arc::new(snapshot) })
}

struct Derivation<'a> {
    fabric: &'a Fabric,
    site: &'a Site,
    host: Option<usize>,
    indices: &'a mut Indices,
    vports: Vec<LocalVport>,
    /// Peer indices of the other hosts.
    hosts: BTreeMap<usize, u16>,
    snapshot: Snapshot,
}

impl<'a> Derivation<'a> {
    /// Interfaces of the tenants that are on this host, wherever they are.
    fn tenants(&self) -> impl Iterator<Item = (usize, &'a Interface, &'a Network, &'a Subnet)> + use<'a> {
        let (fabric, host) = (self.fabric, self.host);
        let here = fabric.interfaces.iter().filter(|i| host.is_some() && i.host == host);
        let scopes: BTreeSet<_> = here.map(|i| scope(fabric, i)).collect();
        let all =
            fabric.interfaces.iter().enumerate().filter(move |(_, i)| scopes.contains(&scope(fabric, i)));
        all.filter_map(|(n, i)| fabric.subnet_of(i).map(|(network, subnet)| (n, i, network, subnet)))
    }

    fn own(&self) -> Option<&'a Host> {
        self.fabric.hosts.get(self.host?)
    }

    fn vports(&mut self) -> Result<(), SnapshotError> {
        let here: Vec<_> = self.tenants().filter(|(_, i, ..)| i.host == self.host).collect();
        let key = |i: &Interface| i.name.to_ascii_lowercase();
        let names = |kind: Option<Offload>| {
            here.iter()
                .filter(|(_, i, ..)| kind.is_none_or(|k| i.offload == k))
                .map(|(_, i, ..)| key(i))
                .collect()
        };
        self.indices.vports.keep(&names(None));
        self.indices.vfs.keep(&names(Some(Offload::Vf)));
        // A queue also serves what finds no virtual function.
        self.indices.vmqs.keep(&names(None));
        for (interface, i, network, subnet) in here {
            let limit = Port::MAX_VPORTS;
            let id = self.indices.vports.number(&key(i), limit);
            let id = VportId(id.ok_or(SnapshotError { what: "vports", limit })?);
            let vf = match i.offload {
                Offload::Vf => self.indices.vfs.number(&key(i), self.site.vfs),
                Offload::Vmq | Offload::Software => None,
            };
            let target = match vf {
                Some(vf) => Target::Vf(vf),
                None if self.site.vmqs == 0 => Target::Software,
                None => {
                    let (what, limit) = ("interfaces without a virtual function", self.site.vmqs);
                    let vmq = self.indices.vmqs.number(&key(i), limit);
                    Target::Vmq(vmq.ok_or(SnapshotError { what, limit })?)
                }
            };
            let (acls_in, acls_out) = acl_sets(self.fabric, i, subnet);
            let own = pinned(self.fabric, i).map(|u| u.number);
            let place = self.own().and_then(|h| h.uplinks.iter().position(|u| Some(u.number) == own));
            self.vports.push(LocalVport { id, interface, target });
            self.snapshot.vports.insert(
                id,
                snapshot::Vport {
                    name: i.name.clone(),
                    mac: i.mac,
                    addresses: i.addresses.clone(),
                    vsid: subnet.vsid.get(),
                    rdid: network.rdid,
                    vlan: None,
                    target,
                    up: true,
                    acls_in: Arc::new(acls_in),
                    acls_out: Arc::new(acls_out),
                    generation: 0,
                    local_pa: place.unwrap_or(0) as u8,
                    mtu: self.fabric.vm_mtu(),
                    quota: None,
                },
            );
        }
        Ok(())
    }

    fn networks(&mut self) {
        for (_, _, network, subnet) in self.tenants() {
            let distributed_router = self.fabric.settings.distributed_router;
            self.snapshot
                .networks
                .insert(network.rdid, snapshot::Network { encap: encap(network), distributed_router });
            let known = network.subnets.iter().filter(|s| distributed_router || s.vsid == subnet.vsid);
            for s in known {
                self.snapshot.subnets.entry(s.vsid.get()).or_insert_with(|| snapshot::Subnet {
                    vsid: s.vsid.get(),
                    rdid: network.rdid,
                    prefixes: vec![s.prefix],
                    gateways: vec![s.prefix.lowest_host()],
                    group_out: None,
                    group_in: None,
                });
            }
        }
    }

    fn underlay(&mut self) {
        for uplink in self.own().into_iter().flat_map(|h| &h.uplinks) {
            let subnet = &self.fabric.provider_subnets[uplink.subnet];
            self.snapshot.local_pas.push(LocalPa {
                addr: uplink.pa,
                mac: uplink.mac,
                prefix: subnet.prefix,
                gateway: subnet.gateway,
                uplink: uplink.number,
                vlan: subnet.vlan,
                mtu: subnet.mtu,
            });
        }
    }

    fn peers(&mut self) -> Result<(), SnapshotError> {
        let mut others: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
        for (_, interface, network, subnet) in self.tenants() {
            let Some(host) = interface.host.filter(|h| Some(*h) != self.host) else { continue };
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
            let index = self.indices.peers.number(&key(host), OTHERS);
            let index = index.ok_or(SnapshotError { what: "other hosts", limit: OTHERS })?;
            let Some(vsids) = others.remove(&host) else {
                self.snapshot.host = index;
                continue;
            };
            self.hosts.insert(host, index);
            let pas = self.fabric.hosts[host].uplinks.iter().map(|u| u.pa).collect();
            self.snapshot.peers.insert(index, Peer { pas, vsids });
        }
        Ok(())
    }

    fn tunnels(&mut self) -> Result<(), SnapshotError> {
        let encaps: BTreeSet<Encap> = self.snapshot.networks.values().map(|n| n.encap).collect();
        let mut wanted = Vec::new();
        for uplink in self.own().into_iter().flat_map(|h| &h.uplinks) {
            for remote in self.hosts.keys().flat_map(|h| &self.fabric.hosts[*h].uplinks) {
                for encap in &encaps {
                    wanted.push((tunnel_name(uplink, remote, *encap), uplink, remote, *encap));
                }
            }
        }
        self.indices.tunnels.keep(&wanted.iter().map(|w| w.0.clone()).collect());
        for (name, uplink, remote, encap) in wanted {
            let index = self.indices.tunnels.number(&name, TUNNELS);
            let index = index.ok_or(SnapshotError { what: "tunnels", limit: TUNNELS })?;
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

    /// The tunnel from an uplink of ours to one of theirs.
    fn tunnel(&mut self, own: &HostUplink, remote: &HostUplink, encap: Encap) -> Option<u16> {
        self.indices.tunnels.number(&tunnel_name(own, remote, encap), TUNNELS)
    }

    fn groups(&mut self) -> Result<(), SnapshotError> {
        let mut local: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
        for (id, vport) in &self.snapshot.vports {
            local.entry(vport.vsid).or_default().push(Member::Port(Port::Vport(*id)));
        }
        let mut remote: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for (_, interface, _, subnet) in self.tenants() {
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
                // One copy to each host: from our first uplink to its first, by what serves them when they are down.
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
        let index = self.indices.groups.number(name, OTHERS);
        let index = index.ok_or(SnapshotError { what: "broadcast domains", limit: OTHERS })?;
        self.snapshot.groups.insert(index, GroupSpec { index, members });
        Ok(index)
    }

    fn mappings(&mut self) {
        let vports: BTreeMap<usize, VportId> = self.vports.iter().map(|v| (v.interface, v.id)).collect();
        for (interface, i, network, subnet) in self.tenants() {
            let location = match (vports.get(&interface), i.host.and_then(|h| self.hosts.get(&h)).copied()) {
                (Some(vport), _) => Location::Local(*vport),
                (None, Some(peer)) => match self.ways(i, encap(network)) {
                    Some(tunnels) => Location::Remote { peer, tunnels },
                    None => continue,
                },
                // It runs nowhere now.
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

    /// Tunnels to the provider address that an interface is pinned to, from each of ours.
    fn ways(&mut self, interface: &Interface, encap: Encap) -> Option<[u16; 2]> {
        let remote = pinned(self.fabric, interface)?;
        let own = self.own()?;
        let first = self.tunnel(own.uplinks.first()?, remote, encap)?;
        let second = own.uplinks.get(1).and_then(|u| self.tunnel(u, remote, encap));
        Some([first, second.unwrap_or(first)])
    }

    /// Everything that a decision takes from the policy is in the fingerprint of a vport or of a mapping.
    fn generations(&mut self) {
        let s = &mut self.snapshot;
        let shared = (&s.router_mac, &s.local_pas, self.fabric.settings.distributed_router);
        let vports = s.vports.iter().map(|(id, v)| {
            let subnets: Vec<_> = s.subnets.values().filter(|n| n.rdid == v.rdid).collect();
            (id.0, fingerprint(&(v, s.networks.get(&v.rdid), subnets, shared)))
        });
        self.indices.vport_generations.update(&vports.collect());
        for (id, vport) in &mut s.vports {
            vport.generation = self.indices.vport_generations.value(id.0);
        }
        let mut cells: BTreeMap<u16, Vec<&snapshot::Mapping>> = BTreeMap::new();
        s.mappings.iter().for_each(|m| cells.entry(m.cell).or_default().push(m));
        let contents = cells.iter().map(|(cell, content)| (*cell, fingerprint(content)));
        self.indices.cell_generations.update(&contents.collect());
        let current: Vec<snapshot::Mapping> = s.mappings.iter().copied().collect();
        for mapping in current {
            let generation = self.indices.cell_generations.value(mapping.cell);
            s.mappings.insert(snapshot::Mapping { generation, ..mapping });
        }
    }
}

/// What an interface can reach: its network where hosts route, its subnet where they do not.
fn scope(fabric: &Fabric, interface: &Interface) -> (usize, usize) {
    let subnet = if fabric.settings.distributed_router { 0 } else { interface.subnet };
    (interface.network, subnet)
}

/// The uplink whose provider address an interface has: policy's choice, or spread by name, the same on every host.
fn pinned<'f>(fabric: &'f Fabric, interface: &Interface) -> Option<&'f HostUplink> {
    let uplinks = &fabric.hosts.get(interface.host?)?.uplinks;
    let chosen = uplinks.iter().find(|u| Some(u.number) == interface.uplink);
    let spread =
        || uplinks.get(fingerprint(&interface.name.to_ascii_lowercase()) as usize % uplinks.len().max(1));
    chosen.or_else(spread)
}

fn tunnel_name(own: &HostUplink, remote: &HostUplink, encap: Encap) -> String {
    format!("{} {} {} {encap}", own.number, own.pa, remote.pa)
}

fn encap(network: &Network) -> Encap {
    match network.protocol {
        Protocol::Vxlan => Encap::Vxlan,
        Protocol::Nvgre => Encap::Nvgre,
    }
}

#[cfg(test)]
mod tests;
