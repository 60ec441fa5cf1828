//! Servers: uplinks and their provider addresses, given or taken from pools.

use std::collections::HashMap;
use std::net::IpAddr;

use culvert_api::{Bundle, Collection, IpPool, Resource, ResourcePath, Uplink};
use culvert_packet::MacAddr;

use super::{Check, Wanted};
use crate::Kind;
use crate::fabric::{Host, HostUplink};
use crate::names::{from_u128, to_u128};

/// An uplink that only lacks a provider address.
struct UnleasedUplink {
    path: ResourcePath,
    host: usize,
    number: u8,
    subnet: usize,
    mac: Option<MacAddr>,
}

impl Check {
    /// Named addresses are taken first, then pools serve the rest in the order of the document: the same document
    /// gives every host the same addresses.
    pub(super) fn servers(&mut self, bundle: &Bundle) {
        let mut used: HashMap<IpAddr, ResourcePath> = HashMap::new();
        let mut waiting = Vec::new();
        for server in &bundle.servers {
            let path = ResourcePath::top(Collection::Servers, &server.resource_id);
            let host = self.fabric.hosts.len();
            self.fabric.hosts.push(Host { name: server.resource_id.clone(), uplinks: Vec::new() });
            self.add_valid(&path, (host, 0));
            let uplinks = &server.spec().network_interfaces;
            if uplinks.len() > 2 {
                self.problem(&path, Kind::TooManyUplinks { count: uplinks.len() });
                continue;
            }
            let mut numbers: HashMap<u64, ResourcePath> = HashMap::new();
            for (place, uplink) in uplinks.iter().enumerate() {
                let path = path.child("networkInterfaces", &uplink.resource_id);
                let number = uplink.spec().uplink.unwrap_or(place as u64);
                if let Some(other) = numbers.insert(number, path.clone()) {
                    self.problem(&path, Kind::UplinkInUse { value: number, other: other.to_string() });
                    continue;
                }
                waiting.extend(self.uplink(&path, host, number, uplink, &mut used));
            }
        }
        let mut pools = pools(bundle);
        for uplink in waiting {
            self.lease(&uplink, &mut pools, &mut used);
        }
        self.fabric.hosts.iter_mut().for_each(|h| h.uplinks.sort_by_key(|u| u.number));
    }

    /// Adds the uplink to its host, or returns it if it still needs an address.
    fn uplink(
        &mut self,
        path: &ResourcePath,
        host: usize,
        number: u64,
        uplink: &Resource<Uplink>,
        used: &mut HashMap<IpAddr, ResourcePath>,
    ) -> Option<UnleasedUplink> {
        let spec = uplink.spec();
        let number = match u8::try_from(number) {
            Ok(n) if n < 2 => n,
            _ => {
                self.problem(path, Kind::BadUplink { value: number });
                return None;
            }
        };
        let mac = match spec.mac_address.as_str() {
            "" => None,
            text => Some(self.mac(path, "macAddress", text)?),
        };
        let named = match &spec.logical_subnet {
            Some(reference) => Some(self.resolve(path, "logicalSubnet", reference, Wanted::LogicalSubnet)?.0),
            None => None,
        };
        if spec.provider_address.is_empty() {
            let Some(subnet) = named else {
                let example = "\"192.168.1.10\"";
                self.problem(path, Kind::Missing { property: "providerAddress", example });
                return None;
            };
            return Some(UnleasedUplink { path: path.clone(), host, number, subnet, mac });
        }
        let pa = self.address(path, "providerAddress", &spec.provider_address)?;
        let value = pa.to_string();
        let subnet = match named {
            Some(index) => {
                let subnet = &self.fabric.provider_subnets[index];
                if !subnet.prefix.contains(pa) {
                    let (subnet, prefix) = (subnet.path.clone(), subnet.prefix.to_string());
                    self.problem(path, Kind::PaOutsideSubnet { value, subnet, prefix });
                    return None;
                }
                index
            }
            None => match self.provider_prefixes.containing(pa) {
                Some(index) => *index,
                None => {
                    self.problem(path, Kind::PaOutside { value });
                    return None;
                }
            },
        };
        if !pa.is_ipv4() {
            self.problem(path, Kind::PaFamily { value });
            return None;
        }
        if let Some(which) = Self::pa_reserved(&self.fabric.provider_subnets[subnet], pa) {
            self.problem(path, Kind::PaReserved { value, which });
            return None;
        }
        if let Some(other) = used.get(&pa) {
            self.problem(path, Kind::PaInUse { value, other: other.to_string() });
            return None;
        }
        used.insert(pa, path.clone());
        self.add_uplink(&UnleasedUplink { path: path.clone(), host, number, subnet, mac }, pa);
        None
    }

    fn lease(
        &mut self,
        uplink: &UnleasedUplink,
        pools: &mut HashMap<String, Pools>,
        used: &mut HashMap<IpAddr, ResourcePath>,
    ) {
        let subnet = &self.fabric.provider_subnets[uplink.subnet];
        let Some(pools) = pools.get_mut(&subnet.path).filter(|p| !p.ranges.is_empty()) else {
            let kind = Kind::NoPool { subnet: subnet.path.clone() };
            return self.problem(&uplink.path, kind);
        };
        match pools.next(|pa| !used.contains_key(&pa) && Self::pa_reserved(subnet, pa).is_none()) {
            Some(pa) if pa.is_ipv4() => {
                used.insert(pa, uplink.path.clone());
                self.add_uplink(uplink, pa);
            }
            Some(pa) => self.problem(&uplink.path, Kind::PaFamily { value: pa.to_string() }),
            None => {
                let length =
                    |s: &IpAddr, e: &IpAddr| to_u128(*e).saturating_sub(to_u128(*s)).saturating_add(1);
                let size = pools.ranges.iter().fold(0, |all: u128, (s, e)| all.saturating_add(length(s, e)));
                let kind = Kind::PoolExhausted { subnet: subnet.path.clone(), size };
                self.problem(&uplink.path, kind);
            }
        }
    }

    fn add_uplink(&mut self, uplink: &UnleasedUplink, pa: IpAddr) {
        let mac = uplink.mac.unwrap_or_else(|| mac_of(pa));
        self.fabric.hosts[uplink.host].uplinks.push(HostUplink {
            number: uplink.number,
            subnet: uplink.subnet,
            pa,
            mac,
        });
    }
}

/// A locally administered address that holds the provider address: as unique as it, and easy to recognise.
fn mac_of(pa: IpAddr) -> MacAddr {
    let [.., a, b, c, d] = to_u128(pa).to_be_bytes();
    MacAddr([0x02, 0x00, a, b, c, d])
}

/// The pools of a subnet, and how much of them was looked at: what was in use stays in use.
#[derive(Default)]
struct Pools {
    ranges: Vec<(IpAddr, IpAddr)>,
    /// Index of the range in use, and how many of its addresses were looked at.
    at: (usize, u128),
}

impl Pools {
    /// The next address that is free.
    fn next(&mut self, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        while let Some((start, end)) = self.ranges.get(self.at.0) {
            let value = to_u128(*start).checked_add(self.at.1).filter(|v| *v <= to_u128(*end));
            let Some(value) = value else {
                self.at = (self.at.0 + 1, 0);
                continue;
            };
            self.at.1 += 1;
            let address = from_u128(*start, value);
            if is_free(address) {
                return Some(address);
            }
        }
        None
    }
}

/// The pools by the path of their subnet.
fn pools(bundle: &Bundle) -> HashMap<String, Pools> {
    let mut out = HashMap::new();
    for network in &bundle.logical_networks {
        let path = ResourcePath::top(Collection::LogicalNetworks, &network.resource_id);
        for subnet in &network.spec().subnets {
            let range = |pool: &IpPool| {
                Some((pool.start_ip_address.parse().ok()?, pool.end_ip_address.parse().ok()?))
            };
            let ranges = subnet.spec().ip_pools.iter().filter_map(|p| range(p.spec())).collect();
            let pools = Pools { ranges, ..Pools::default() };
            out.insert(path.child("subnets", &subnet.resource_id).to_string(), pools);
        }
    }
    out
}
