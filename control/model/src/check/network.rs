//! Virtual networks: routing domains, VSIDs and prefixes.

use std::collections::HashMap;

use culvert_api::{Bundle, Collection, Resource, ResourcePath, VirtualNetwork, VirtualSubnet};
use culvert_packet::{Prefix, Rdid, Vsid};

use super::disjoint::DisjointPrefixes;
use super::{Check, Wanted};
use crate::Kind;
use crate::fabric::{Network, Subnet};
use crate::names::{covers, has_room, rdid_of_name};

impl Check {
    pub(super) fn networks(&mut self, bundle: &Bundle) {
        let mut rdids: HashMap<Rdid, ResourcePath> = HashMap::new();
        let mut vsids: HashMap<u64, ResourcePath> = HashMap::new();
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
        used: &mut HashMap<u64, ResourcePath>,
    ) -> Option<Vsid> {
        let Some(value) = subnet.spec().virtual_subnet_id else {
            self.problem(path, Kind::Missing { property: "virtualSubnetId", example: "5001" });
            return None;
        };
        let range = self.vsids;
        let vsid = u32::try_from(value).ok().and_then(|v| Vsid::new(v).ok());
        let Some(vsid) = vsid.filter(|_| (range.start..=range.end).contains(&value)) else {
            self.problem(path, Kind::VsidOutOfRange { value, start: range.start, end: range.end });
            return None;
        };
        if let Some(other) = used.get(&value) {
            self.problem(path, Kind::VsidInUse { value, other: other.to_string() });
            return None;
        }
        used.insert(value, path.clone());
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
