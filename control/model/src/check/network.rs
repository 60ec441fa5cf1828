//! Virtual networks: routing domains, VSIDs and prefixes.

use std::collections::{HashMap, HashSet};

use culvert_api::{Bundle, Collection, Resource, ResourcePath, VirtualNetwork, VirtualSubnet, VsidRange};
use culvert_packet::{Prefix, Rdid, Vsid};

use super::disjoint::DisjointPrefixes;
use super::{Check, Wanted};
use crate::Kind;
use crate::fabric::{Network, Subnet};
use crate::indices::fingerprint;
use crate::names::{covers, has_room, rdid_of_name};

impl Check {
    pub(super) fn networks(&mut self, bundle: &Bundle) {
        let mut rdids: HashMap<Rdid, ResourcePath> = HashMap::new();
        let mut vsids = Vsids::new(bundle, &self.vsids);
        for network in &bundle.virtual_networks {
            let path = ResourcePath::top(Collection::VirtualNetworks, &network.resource_id);
            if let Some(reference) = &network.spec().logical_network {
                self.resolve(&path, "logicalNetwork", reference, Wanted::LogicalNetwork);
            }
            let Some(rdid) = self.rdid(&path, network) else { continue };
            if let Some(other) = rdids.get(&rdid) {
                self.problem(&path, Kind::RdidInUse { value: rdid.to_string(), other: other.to_string() });
                continue;
            }
            rdids.insert(rdid, path.clone());
            let space: Vec<Prefix> = network
                .spec()
                .address_space
                .iter()
                .flat_map(|s| &s.address_prefixes)
                .filter_map(|text| self.prefix(&path, "addressSpace", text))
                .collect();
            let index = self.fabric.networks.len();
            let mut subnets: Vec<Subnet> = Vec::new();
            let mut prefixes: DisjointPrefixes<String> = DisjointPrefixes::default();
            for subnet in &network.spec().subnets {
                let path = path.child("subnets", &subnet.resource_id);
                let vsid = self.vsid(&path, subnet, &mut vsids);
                let prefix = self.subnet_prefix(&path, subnet, &space, &prefixes, &network.resource_id);
                let acl = match &subnet.spec().access_control_list {
                    None => Some(None),
                    Some(reference) => {
                        self.resolve(&path, "accessControlList", reference, Wanted::Acl).map(|s| Some(s.0))
                    }
                };
                let (Some(vsid), Some(prefix), Some(acl)) = (vsid, prefix, acl) else { continue };
                self.add_valid(&path, (index, subnets.len()));
                prefixes.insert(prefix, subnet.resource_id.clone());
                subnets.push(Subnet { name: subnet.resource_id.clone(), vsid, prefix, acl });
            }
            self.fabric.networks.push(Network {
                name: network.resource_id.clone(),
                rdid,
                protocol: network.spec().network_virtualization_protocol.unwrap_or(self.protocol),
                subnets,
            });
        }
    }

    fn rdid(&mut self, path: &ResourcePath, network: &Resource<VirtualNetwork>) -> Option<Rdid> {
        let Some(text) = &network.spec().routing_domain_id else {
            return Some(rdid_of_name(&network.resource_id));
        };
        let rdid = text.parse().ok().filter(|r: &Rdid| *r != Rdid::default());
        if rdid.is_none() {
            self.problem(path, Kind::BadRdid { value: text.clone() });
        }
        rdid
    }

    fn vsid(
        &mut self,
        path: &ResourcePath,
        subnet: &Resource<VirtualSubnet>,
        vsids: &mut Vsids,
    ) -> Option<Vsid> {
        let range = self.vsids;
        let Some(value) = subnet.spec().virtual_subnet_id else {
            let free = vsids.free(path, &range).and_then(|v| Vsid::new(u32::try_from(v).ok()?).ok());
            if free.is_none() {
                self.problem(path, Kind::VsidsExhausted { start: range.start, end: range.end });
            }
            return free;
        };
        let vsid = u32::try_from(value).ok().and_then(|v| Vsid::new(v).ok());
        let Some(vsid) = vsid.filter(|_| (range.start..=range.end).contains(&value)) else {
            self.problem(path, Kind::VsidOutOfRange { value, start: range.start, end: range.end });
            return None;
        };
        if let Some(other) = vsids.named.get(&value) {
            self.problem(path, Kind::VsidInUse { value, other: other.to_string() });
            return None;
        }
        vsids.named.insert(value, path.clone());
        Some(vsid)
    }

    fn subnet_prefix(
        &mut self,
        path: &ResourcePath,
        subnet: &Resource<VirtualSubnet>,
        space: &[Prefix],
        others: &DisjointPrefixes<String>,
        network: &str,
    ) -> Option<Prefix> {
        let prefix = self.prefix(path, "addressPrefix", &subnet.spec().address_prefix)?;
        let value = prefix.to_string();
        if !has_room(&prefix) {
            self.problem(path, Kind::PrefixTooSmall { value });
            return None;
        }
        if !space.is_empty() && !space.iter().any(|s| covers(s, &prefix)) {
            let space: Vec<String> = space.iter().map(Prefix::to_string).collect();
            self.problem(path, Kind::PrefixOutsideSpace { value, space: space.join(", ") });
            return None;
        }
        if let Some((other_prefix, other)) = others.overlapping(&prefix) {
            let kind = Kind::PrefixOverlap {
                value,
                other: ResourcePath::top(Collection::VirtualNetworks, network)
                    .child("subnets", other)
                    .to_string(),
                other_value: other_prefix.to_string(),
            };
            self.problem(path, kind);
            return None;
        }
        Some(prefix)
    }
}

/// VSIDs in use.
struct Vsids {
    /// Those that the policy names and that were checked, with their subnets.
    named: HashMap<u64, ResourcePath>,
    /// Those of the range that the policy names anywhere, and those given to subnets that name none.
    taken: HashSet<u64>,
}

impl Vsids {
    fn new(bundle: &Bundle, range: &VsidRange) -> Self {
        let subnets = bundle.virtual_networks.iter().flat_map(|n| &n.spec().subnets);
        let named = subnets.filter_map(|s| s.spec().virtual_subnet_id);
        let taken = named.filter(|v| (range.start..=range.end).contains(v)).collect();
        Self { named: HashMap::new(), taken }
    }

    /// A VSID for a subnet that names none: chosen by its path, the same on every host, and moved by another subnet only
    /// where both would have the same.
    fn free(&mut self, path: &ResourcePath, range: &VsidRange) -> Option<u64> {
        let size = range.end - range.start + 1;
        if self.taken.len() as u64 >= size {
            return None;
        }
        let first = fingerprint(&path.to_string().to_ascii_lowercase()) % size;
        let all = (first..size).chain(0..first).map(|n| range.start + n);
        let free = all.into_iter().find(|v| !self.taken.contains(v))?;
        self.taken.insert(free);
        Some(free)
    }
}
