//! Logical networks: prefixes, VLANs, gateways, MTUs and pools of the provider's addresses.

use std::net::IpAddr;

use culvert_api::{Bundle, Collection, IpPool, LogicalSubnet, Resource, ResourcePath};
use culvert_packet::{Prefix, VlanId};

use super::Check;
use crate::Kind;
use crate::fabric::{Fabric, ProviderSubnet};
use crate::names::to_u128;

/// Largest MTU of Ethernet ports.
const LARGEST_MTU: u64 = 9216;
/// Smallest MTU that IPv6 allows (RFC 8200 section 5).
const IPV6_MTU: u64 = 1280;

impl Check {
    pub(super) fn logical_networks(&mut self, bundle: &Bundle) {
        for (index, network) in bundle.logical_networks.iter().enumerate() {
            let path = ResourcePath::top(Collection::LogicalNetworks, &network.resource_id);
            self.add_valid(&path, (index, 0));
            if network.spec().network_virtualization_enabled == Some(false) {
                let subnets = network.spec().subnets.iter();
                self.disabled.extend(
                    subnets.map(|s| path.child("subnets", &s.resource_id).to_string().to_ascii_lowercase()),
                );
                continue;
            }
            for subnet in &network.spec().subnets {
                let path = path.child("subnets", &subnet.resource_id);
                let Some(provider) = self.logical_subnet(&path, subnet) else { continue };
                if let Some((other, index)) = self.provider_prefixes.overlapping(&provider.prefix) {
                    let kind = Kind::PrefixOverlap {
                        value: provider.prefix.to_string(),
                        other: self.fabric.provider_subnets[*index].path.clone(),
                        other_value: other.to_string(),
                    };
                    self.problem(&path, kind);
                    continue;
                }
                self.provider_prefixes.insert(provider.prefix, self.fabric.provider_subnets.len());
                self.add_valid(&path, (self.fabric.provider_subnets.len(), 0));
                self.fabric.provider_subnets.push(provider);
            }
        }
        let subnets = &self.fabric.provider_subnets;
        if subnets.len() > 1 {
            let lonely: Vec<String> =
                subnets.iter().filter(|s| s.gateway.is_none()).map(|s| s.path.clone()).collect();
            for path in lonely {
                self.warning(
                    &path,
                    "has no defaultGateways: hosts in other provider subnets are out of reach".into(),
                );
            }
        }
    }

    fn logical_subnet(
        &mut self,
        path: &ResourcePath,
        subnet: &Resource<LogicalSubnet>,
    ) -> Option<ProviderSubnet> {
        let before = self.problem_count();
        let spec = subnet.spec();
        let prefix = self.prefix(path, "addressPrefix", &spec.address_prefix);
        let vlan = match spec.vlan_id {
            None | Some(0) => None,
            Some(value) => {
                let vlan = u16::try_from(value).ok().and_then(|v| VlanId::new(v).ok());
                if vlan.is_none() {
                    self.problem(path, Kind::BadVlan { value });
                }
                vlan
            }
        };
        let mtu = spec.mtu.unwrap_or(Fabric::DEFAULT_PA_MTU.into());
        let left = mtu.saturating_sub(Fabric::OVERHEAD.into());
        if left < IPV6_MTU {
            self.problem(path, Kind::MtuTooSmall { value: mtu, left });
        } else if mtu > LARGEST_MTU {
            self.problem(path, Kind::MtuTooLarge { value: mtu });
        }
        let mut gateway = None;
        for value in &spec.default_gateways {
            let Some(address) = self.address(path, "defaultGateways", value) else { continue };
            if prefix.is_some_and(|p| !p.contains(address)) {
                let prefix = prefix.map(|p| p.to_string()).unwrap_or_default();
                self.problem(path, Kind::GatewayOutside { value: value.clone(), prefix });
            }
            gateway = gateway.or(Some(address));
        }
        let prefix = prefix?;
        for pool in &spec.ip_pools {
            let path = path.child("ipPools", &pool.resource_id);
            self.pool(&path, pool.spec(), &prefix);
        }
        let mtu = u16::try_from(mtu).ok()?;
        let path = path.to_string();
        (self.problem_count() == before).then_some(ProviderSubnet { path, prefix, vlan, gateway, mtu })
    }

    fn pool(&mut self, path: &ResourcePath, pool: &IpPool, prefix: &Prefix) {
        let start = self.address(path, "startIpAddress", &pool.start_ip_address);
        let end = self.address(path, "endIpAddress", &pool.end_ip_address);
        let (Some(start), Some(end)) = (start, end) else { return };
        if !prefix.contains(start) || !prefix.contains(end) || to_u128(start) > to_u128(end) {
            let kind =
                Kind::BadPool { start: start.to_string(), end: end.to_string(), prefix: prefix.to_string() };
            self.problem(path, kind);
        }
    }

    /// Why an address of a provider subnet is reserved.
    pub(super) fn pa_reserved(subnet: &ProviderSubnet, pa: IpAddr) -> Option<&'static str> {
        if Some(pa) == subnet.gateway {
            Some("gateway of its subnet")
        } else if pa == subnet.prefix.addr() {
            Some("network address of its subnet")
        } else if pa == subnet.prefix.last() {
            Some("broadcast address of its subnet")
        } else {
            None
        }
    }
}
