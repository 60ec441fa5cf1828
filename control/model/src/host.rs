//! One host's part of the fabric: its vports, the hosts it talks with, and the ways to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use culvert_api::Protocol;
use culvert_packet::{Encap, Rdid, VlanId, VportId, Vsid};
use thiserror::Error;

use crate::fabric::{HostUplink, Interface, Network, Subnet};
use crate::indices::fingerprint;
use crate::names::to_u128;
use crate::{Fabric, Indices};

/// How many vports a host can have.
const VPORTS: u16 = 1024;
/// How many tunnels, so that a group's member fits 16 bits beside a port.
const TUNNELS: u16 = 1 << 15;
/// How many other hosts and broadcast domains.
const OTHERS: u16 = u16::MAX;

/// What one host carries out.
#[derive(Clone, Debug, Default)]
pub struct HostPart {
    /// The whole policy.
    pub fabric: Arc<Fabric>,
    /// Index of this host in it; none: the policy does not know this host.
    pub host: Option<usize>,
    /// The interfaces that are on this host.
    pub vports: Vec<LocalVport>,
    /// The other hosts that its tenants are on.
    pub peers: Vec<Peer>,
    /// The ways to them.
    pub tunnels: Vec<Tunnel>,
    /// Where broadcasts of each of its subnets go.
    pub groups: Vec<Group>,
    /// Where each customer address of its tenants is.
    pub mappings: Vec<Mapping>,
    /// Generations of mapping cells: what is not here is 0.
    pub cells: Vec<(u16, u32)>,
}

/// An interface on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalVport {
    /// Its number.
    pub id: VportId,
    /// Index into [`Fabric::interfaces`].
    pub interface: usize,
    /// The uplink it is pinned to.
    pub uplink: u8,
    /// Grows with every change of what is decided for its packets.
    pub generation: u32,
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number in flow keys; both its addresses have the same.
    pub index: u16,
    /// Index into [`Fabric::hosts`].
    pub host: usize,
    /// The VSIDs that packets from it may carry.
    pub vsids: BTreeSet<Vsid>,
}

/// A way from an uplink of this host to an address of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its number.
    pub index: u16,
    /// The other host's number.
    pub peer: u16,
    /// Own uplink.
    pub uplink: u8,
    /// Own provider address.
    pub local: IpAddr,
    /// The other's.
    pub remote: IpAddr,
    /// How frames are carried.
    pub encap: Encap,
    /// Whose MAC the outer frame goes to; none: out of reach, there is no gateway.
    pub next_hop: Option<IpAddr>,
    /// VLAN of the outer frame.
    pub vlan: Option<VlanId>,
    /// Largest outer IP packet.
    pub mtu: u16,
}

/// A broadcast domain's members, as seen from this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub index: u16,
    /// The domain.
    pub vsid: Vsid,
    /// One tunnel to each other host that has it.
    pub tunnels: Vec<u16>,
    /// Own vports in it.
    pub vports: Vec<VportId>,
}

/// Where a customer address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Routing domain.
    pub rdid: Rdid,
    /// The address.
    pub ca: IpAddr,
    /// Its generation's cell.
    pub cell: u16,
    /// Index into [`Fabric::interfaces`].
    pub interface: usize,
    /// On this host: its vport.
    pub vport: Option<VportId>,
    /// On another: its number, and the provider address that the interface is pinned to.
    pub remote: Option<(u16, IpAddr)>,
}

/// More of something than a host has numbers for.
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
        format!("spread the virtual machines so that each host needs at most {} {}", self.limit, self.what)
    }
}

/// The cell that holds the generation of a mapping.
pub fn mapping_cell(rdid: Rdid, ca: IpAddr) -> u16 {
    let bytes = rdid.0.into_iter().chain(to_u128(ca).to_be_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48) as u16
}

/// Derives this host's part. Numbers come from and go to `indices`, which the caller persists before it carries the
/// part out.
///
/// # Errors
/// The host runs out of numbers.
pub fn host_part(fabric: Arc<Fabric>, host: &str, indices: &mut Indices) -> Result<HostPart, SnapshotError> {
    let host = fabric.host(host);
    let mut part = Derivation { fabric: &fabric, host, indices, part: HostPart::default() };
    part.vports()?;
    part.peers()?;
    part.tunnels()?;
    part.groups()?;
    part.mappings();
    part.generations();
    let part = part.part;
    Ok(HostPart { fabric, host, ..part })
}

struct Derivation<'a> {
    fabric: &'a Fabric,
    host: Option<usize>,
    indices: &'a mut Indices,
    part: HostPart,
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

    fn vports(&mut self) -> Result<(), SnapshotError> {
        let here: Vec<(usize, &Interface)> = self.tenants().map(|(n, i, ..)| (n, i)).collect();
        let here: Vec<_> = here.into_iter().filter(|(_, i)| i.host == self.host).collect();
        let key = |i: &Interface| i.name.to_ascii_lowercase();
        self.indices.vports.keep(&here.iter().map(|(_, i)| key(i)).collect());
        for (interface, i) in here {
            let id = self.indices.vports.number(&key(i), VPORTS);
            let id = id.ok_or(SnapshotError { what: "vports", limit: VPORTS })?;
            let uplink = pinned(self.fabric, i).map_or(0, |u| u.number);
            self.part.vports.push(LocalVport { id: VportId(id), interface, uplink, generation: 0 });
        }
        Ok(())
    }

    fn peers(&mut self) -> Result<(), SnapshotError> {
        let mut hosts: BTreeMap<usize, BTreeSet<Vsid>> = BTreeMap::new();
        for (_, interface, network, subnet) in self.tenants() {
            let Some(host) = interface.host.filter(|h| Some(*h) != self.host) else { continue };
            let vsids = hosts.entry(host).or_default();
            if self.fabric.settings.distributed_router {
                // A host that routes sends with the destination's VSID.
                vsids.extend(network.subnets.iter().map(|s| s.vsid));
            } else {
                vsids.insert(subnet.vsid);
            }
        }
        let key = |host: usize| self.fabric.hosts[host].name.to_ascii_lowercase();
        self.indices.peers.keep(&hosts.keys().map(|h| key(*h)).collect());
        for (host, vsids) in hosts {
            let index = self.indices.peers.number(&key(host), OTHERS);
            let index = index.ok_or(SnapshotError { what: "other hosts", limit: OTHERS })?;
            self.part.peers.push(Peer { index, host, vsids });
        }
        Ok(())
    }

    fn tunnels(&mut self) -> Result<(), SnapshotError> {
        let Some(own) = self.host.map(|h| &self.fabric.hosts[h]) else { return Ok(()) };
        let encaps: BTreeSet<Encap> = self.tenants().map(|(_, _, network, _)| encap(network)).collect();
        let mut wanted = Vec::new();
        for peer in &self.part.peers {
            for (uplink, remote) in own
                .uplinks
                .iter()
                .flat_map(|u| self.fabric.hosts[peer.host].uplinks.iter().map(move |r| (u, r)))
            {
                for encap in &encaps {
                    let name = format!("{} {} {} {encap}", uplink.number, uplink.pa, remote.pa);
                    wanted.push((name, peer.index, uplink, remote, *encap));
                }
            }
        }
        self.indices.tunnels.keep(&wanted.iter().map(|w| w.0.clone()).collect());
        for (name, peer, uplink, remote, encap) in wanted {
            let index = self.indices.tunnels.number(&name, TUNNELS);
            let index = index.ok_or(SnapshotError { what: "tunnels", limit: TUNNELS })?;
            let subnet = &self.fabric.provider_subnets[uplink.subnet];
            let far = &self.fabric.provider_subnets[remote.subnet];
            self.part.tunnels.push(Tunnel {
                index,
                peer,
                uplink: uplink.number,
                local: uplink.pa,
                remote: remote.pa,
                encap,
                next_hop: if subnet.prefix.contains(remote.pa) { Some(remote.pa) } else { subnet.gateway },
                vlan: subnet.vlan,
                mtu: subnet.mtu.min(far.mtu),
            });
        }
        Ok(())
    }

    fn groups(&mut self) -> Result<(), SnapshotError> {
        let mut domains: BTreeMap<Vsid, (Encap, BTreeSet<usize>, Vec<VportId>)> = BTreeMap::new();
        for vport in &self.part.vports {
            let interface = &self.fabric.interfaces[vport.interface];
            let Some((network, subnet)) = self.fabric.subnet_of(interface) else { continue };
            let entry =
                domains.entry(subnet.vsid).or_insert_with(|| (encap(network), BTreeSet::new(), Vec::new()));
            entry.2.push(vport.id);
        }
        for (_, interface, _, subnet) in self.tenants() {
            if let (Some(entry), Some(host)) = (domains.get_mut(&subnet.vsid), interface.host)
                && Some(host) != self.host
            {
                entry.1.insert(host);
            }
        }
        self.indices.groups.keep(&domains.keys().map(Vsid::to_string).collect());
        for (vsid, (encap, hosts, vports)) in domains {
            let index = self.indices.groups.number(&vsid.to_string(), OTHERS);
            let index = index.ok_or(SnapshotError { what: "broadcast domains", limit: OTHERS })?;
            let peers = self.part.peers.iter().filter(|p| hosts.contains(&p.host));
            // The first way to each: from the lowest uplink to the lowest.
            let first = |p: &Peer| self.part.tunnels.iter().find(|t| t.peer == p.index && t.encap == encap);
            let tunnels = peers.filter_map(first).map(|t| t.index).collect();
            self.part.groups.push(Group { index, vsid, tunnels, vports });
        }
        Ok(())
    }

    fn mappings(&mut self) {
        let vports: BTreeMap<usize, VportId> = self.part.vports.iter().map(|v| (v.interface, v.id)).collect();
        let peers: BTreeMap<usize, u16> = self.part.peers.iter().map(|p| (p.host, p.index)).collect();
        for (interface, i, network, _) in self.tenants() {
            let vport = vports.get(&interface).copied();
            let peer = i.host.and_then(|h| peers.get(&h).copied());
            let remote = peer.zip(pinned(self.fabric, i).map(|u| u.pa));
            for ca in &i.addresses {
                let cell = mapping_cell(network.rdid, *ca);
                self.part.mappings.push(Mapping {
                    rdid: network.rdid,
                    ca: *ca,
                    cell,
                    interface,
                    vport,
                    remote,
                });
            }
        }
    }

    /// Everything that a decision takes from the policy is in the fingerprint of a vport or of a mapping.
    fn generations(&mut self) {
        let own = self.host.map(|h| &self.fabric.hosts[h]);
        let mut vports = BTreeMap::new();
        for vport in &self.part.vports {
            let i = &self.fabric.interfaces[vport.interface];
            let acl = i.acl.map(|a| &self.fabric.acls[a]);
            let place = self.fabric.subnet_of(i).map(|(n, s)| (n.rdid, n.protocol, &n.subnets, s.vsid));
            let content = (
                &i.name,
                i.mac,
                &i.addresses,
                i.offload,
                vport.uplink,
                acl,
                place,
                own,
                &self.fabric.settings,
            );
            vports.insert(vport.id.0, fingerprint(&content));
        }
        self.indices.vport_generations.update(&vports);
        for vport in &mut self.part.vports {
            vport.generation = self.indices.vport_generations.value(vport.id.0);
        }
        let mut cells: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for m in &self.part.mappings {
            let i = &self.fabric.interfaces[m.interface];
            let vsid = self.fabric.subnet_of(i).map(|(_, s)| s.vsid);
            cells.entry(m.cell).or_default().push((m.rdid, m.ca, i.mac, vsid, m.vport, m.remote));
        }
        let contents = cells.into_iter().map(|(cell, mut content)| {
            content.sort();
            (cell, fingerprint(&content))
        });
        self.indices.cell_generations.update(&contents.collect());
        self.part.cells = self.indices.cell_generations.values().collect();
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

fn encap(network: &Network) -> Encap {
    match network.protocol {
        Protocol::Vxlan => Encap::Vxlan,
        Protocol::Nvgre => Encap::Nvgre,
    }
}

#[cfg(test)]
mod tests;
