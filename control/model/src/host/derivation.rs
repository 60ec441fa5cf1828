//! The derivation's steps on this host: vports, networks, uplinks, generations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use culvert_api::Offload;
use culvert_flow::Port;
use culvert_packet::VportId;
use culvert_policy::acl::AclSet;
use culvert_policy::snapshot::{self, LocalPa, Snapshot, Target};

use super::config::{HostConfig, LocalVport, Site, SnapshotError};
use crate::acl::acl_sets;
use crate::fabric::{Host, Interface, Network, Subnet};
use crate::indices::fingerprint;
use crate::{Fabric, Indices};

/// Derives this host's configuration. Takes numbers from `indices` and adds new ones; the caller stores `indices` before it
/// applies the configuration.
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
        peers: BTreeMap::new(),
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

/// A configuration in the making.
pub(super) struct Derivation<'a> {
    pub(super) fabric: &'a Fabric,
    site: &'a Site,
    /// This host's index in the fabric.
    pub(super) host: Option<usize>,
    pub(super) indices: &'a mut Indices,
    pub(super) vports: Vec<LocalVport>,
    /// Peer indices of the other hosts.
    pub(super) peers: BTreeMap<usize, u16>,
    pub(super) snapshot: Snapshot,
}

impl<'a> Derivation<'a> {
    /// Interfaces on any host that a vport of this host can reach.
    pub(super) fn reachable(
        &self,
    ) -> impl Iterator<Item = (usize, &'a Interface, &'a Network, &'a Subnet)> + use<'a> {
        let (fabric, host) = (self.fabric, self.host);
        let here = fabric.interfaces.iter().filter(|i| host.is_some() && i.host == host);
        let scopes: BTreeSet<_> = here.map(|i| fabric.scope(i)).collect();
        let all =
            fabric.interfaces.iter().enumerate().filter(move |(_, i)| scopes.contains(&fabric.scope(i)));
        all.filter_map(|(n, i)| fabric.subnet_of(i).map(|(network, subnet)| (n, i, network, subnet)))
    }

    /// This host.
    pub(super) fn own(&self) -> Option<&'a Host> {
        self.fabric.hosts.get(self.host?)
    }

    fn vports(&mut self) -> Result<(), SnapshotError> {
        let here: Vec<_> = self.reachable().filter(|(_, i, ..)| i.host == self.host).collect();
        let key = |i: &Interface| i.name.to_ascii_lowercase();
        let names = |kind: Option<Offload>| {
            here.iter()
                .filter(|(_, i, ..)| kind.is_none_or(|k| i.offload == k))
                .map(|(_, i, ..)| key(i))
                .collect()
        };
        self.indices.vports.keep(&names(None));
        self.indices.vfs.keep(&names(Some(Offload::Vf)));
        // A queue also serves an interface that finds no virtual function.
        self.indices.vmqs.keep(&names(None));
        // Vports of one subnet mostly have the same lists: one copy for all.
        let mut lists = HashMap::new();
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
            let (acls_in, acls_out) = lists.entry((i.acl, subnet.acl)).or_insert_with(|| {
                let (acls_in, acls_out) = acl_sets(self.fabric, i, subnet);
                (Arc::new(acls_in), Arc::new(acls_out))
            });
            let own = self.fabric.uplink_of(i).map(|u| u.number);
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
                    acls_in: acls_in.clone(),
                    acls_out: acls_out.clone(),
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
        let distributed_router = self.fabric.settings.distributed_router;
        let mut seen = BTreeSet::new();
        for (_, i, network, subnet) in self.reachable() {
            if !seen.insert(self.fabric.scope(i)) {
                continue;
            }
            self.snapshot
                .networks
                .insert(network.rdid, snapshot::Network { encap: network.encap(), distributed_router });
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

    /// The fingerprint of a vport or mapping covers everything that a decision reads from the policy.
    fn generations(&mut self) {
        let s = &mut self.snapshot;
        let shared = fingerprint(&(&s.router_mac, &s.local_pas, self.fabric.settings.distributed_router));
        let mut subnets: HashMap<_, Vec<&snapshot::Subnet>> = HashMap::new();
        s.subnets.values().for_each(|n| subnets.entry(n.rdid).or_default().push(n));
        let domains: HashMap<_, u64> = subnets
            .into_iter()
            .map(|(rdid, subnets)| (rdid, fingerprint(&(s.networks.get(&rdid), subnets))))
            .collect();
        // Each list once, not once for each vport.
        let mut lists = HashMap::new();
        let mut of_list =
            |list: &Arc<AclSet>| *lists.entry(Arc::as_ptr(list)).or_insert_with(|| fingerprint(list));
        let vports = s.vports.iter().map(|(id, v)| {
            let content = (of_list(&v.acls_in), of_list(&v.acls_out), domains.get(&v.rdid), shared);
            let none = Arc::new(AclSet::default());
            let own = snapshot::Vport { acls_in: none.clone(), acls_out: none, ..v.clone() };
            (id.0, fingerprint(&(own, content)))
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
