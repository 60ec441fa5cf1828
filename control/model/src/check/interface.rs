//! Network interfaces: addresses, MACs, subnets and hosts.

use std::collections::HashMap;
use std::net::IpAddr;

use culvert_api::{Bundle, Collection, IpConfiguration, NetworkInterface, Resource, ResourcePath};
use culvert_packet::MacAddr;

use super::{Check, FabricIndex, Wanted};
use crate::Kind;
use crate::fabric::Interface;

/// Vports that a host can have.
const VPORTS: usize = 1024;

/// Addresses in use, with their owners.
#[derive(Default)]
struct Taken {
    /// By network.
    addresses: HashMap<(usize, IpAddr), ResourcePath>,
    /// By subnet.
    macs: HashMap<(FabricIndex, [u8; 6]), ResourcePath>,
}

impl Check {
    pub(super) fn interfaces(&mut self, bundle: &Bundle) {
        let mut taken = Taken::default();
        for interface in &bundle.network_interfaces {
            let path = ResourcePath::top(Collection::NetworkInterfaces, &interface.resource_id);
            if let Some(good) = self.interface(&path, interface, &mut taken) {
                self.fabric.interfaces.push(good);
            }
        }
    }

    fn interface(
        &mut self,
        path: &ResourcePath,
        interface: &Resource<NetworkInterface>,
        taken: &mut Taken,
    ) -> Option<Interface> {
        let before = self.problem_count();
        let spec = interface.spec();
        let mac = if spec.private_mac_address.is_empty() {
            let example = "\"001DD8070001\"";
            self.problem(path, Kind::Missing { property: "privateMacAddress", example });
            None
        } else {
            self.mac(path, "privateMacAddress", &spec.private_mac_address)
        };
        let host = match &spec.server {
            None => Some(None),
            Some(reference) => self.resolve(path, "server", reference, Wanted::Server).map(|s| Some(s.0)),
        };
        let uplink = spec.uplink.and_then(|value| self.pinned(path, value, host.flatten()));
        let mut acl = match &spec.access_control_list {
            None => Some(None),
            Some(reference) => {
                self.resolve(path, "accessControlList", reference, Wanted::Acl).map(|s| Some(s.0))
            }
        };
        if spec.ip_configurations.is_empty() {
            let example = "[{\"resourceId\": \"ip\", \"properties\": {...}}]";
            self.problem(path, Kind::Missing { property: "ipConfigurations", example });
        }
        let mut at: Option<(FabricIndex, String)> = None;
        let mut addresses = Vec::new();
        for ip in &spec.ip_configurations {
            let path_ip = path.child("ipConfigurations", &ip.resource_id);
            if let Some(reference) = &ip.spec().access_control_list {
                let own = self.resolve(&path_ip, "accessControlList", reference, Wanted::Acl);
                if acl == Some(None) {
                    acl = own.map(|s| Some(s.0));
                }
            }
            let Some((slot, subnet)) = self.ip_subnet(&path_ip, ip) else { continue };
            match &at {
                Some((other, one)) if *other != slot => {
                    let kind = Kind::TwoSubnets { one: one.clone(), other: subnet };
                    self.problem(path, kind);
                    continue;
                }
                Some(_) => {}
                None => at = Some((slot, subnet)),
            }
            addresses.extend(self.customer_address(&path_ip, ip, slot, taken));
        }
        let ((network, subnet), _) = at?;
        let mac = mac?;
        self.unique_mac(path, mac, (network, subnet), taken);
        if self.problem_count() > before {
            return None;
        }
        Some(Interface {
            name: interface.resource_id.clone(),
            mac,
            host: host?,
            network,
            subnet,
            addresses,
            acl: acl?,
            offload: spec.offload.unwrap_or_default(),
            software_port: spec.software_port,
            uplink,
        })
    }

    fn pinned(&mut self, path: &ResourcePath, value: u64, host: Option<usize>) -> Option<u8> {
        let number = u8::try_from(value).ok().filter(|n| *n < 2);
        let Some(number) = number else {
            self.problem(path, Kind::BadUplink { value });
            return None;
        };
        let host = self.fabric.hosts.get(host?)?;
        if host.uplinks.iter().any(|u| u.number == number) {
            return Some(number);
        }
        let kind = Kind::NoSuchUplink { value, host: host.name.clone() };
        self.problem(path, kind);
        None
    }

    fn ip_subnet(
        &mut self,
        path: &ResourcePath,
        ip: &Resource<IpConfiguration>,
    ) -> Option<(FabricIndex, String)> {
        let Some(reference) = &ip.spec().subnet else {
            let example = "{\"resourceRef\": \"/virtualNetworks/contoso/subnets/sql\"}";
            self.problem(path, Kind::Missing { property: "subnet", example });
            return None;
        };
        let slot = self.resolve(path, "subnet", reference, Wanted::VirtualSubnet)?;
        Some((slot, reference.resource_ref.clone()))
    }

    fn customer_address(
        &mut self,
        path: &ResourcePath,
        ip: &Resource<IpConfiguration>,
        (network, subnet): FabricIndex,
        taken: &mut Taken,
    ) -> Option<IpAddr> {
        let address = self.address(path, "privateIPAddress", &ip.spec().private_ip_address)?;
        let prefix = self.fabric.networks[network].subnets[subnet].prefix;
        let value = address.to_string();
        let kind = if !prefix.contains(address) {
            Kind::AddressOutsideSubnet { value, prefix: prefix.to_string() }
        } else if address == prefix.lowest_host() {
            Kind::GatewayAddress { value, prefix: prefix.to_string() }
        } else if address == prefix.addr() {
            Kind::ReservedAddress { value, which: "network", prefix: prefix.to_string() }
        } else if address.is_ipv4() && address == prefix.last() {
            Kind::ReservedAddress { value, which: "broadcast", prefix: prefix.to_string() }
        } else if let Some(other) = taken.addresses.get(&(network, address)) {
            Kind::DuplicateAddress { value, other: other.to_string() }
        } else {
            taken.addresses.insert((network, address), path.clone());
            return Some(address);
        };
        self.problem(path, kind);
        None
    }

    fn unique_mac(&mut self, path: &ResourcePath, mac: MacAddr, slot: FabricIndex, taken: &mut Taken) {
        if mac == self.fabric.settings.router_mac {
            self.problem(path, Kind::RouterMac { value: mac.to_string() });
        }
        if let Some(other) = taken.macs.get(&(slot, mac.0)) {
            let vsid = self.fabric.networks[slot.0].subnets[slot.1].vsid.get();
            let kind = Kind::DuplicateMac { value: mac.to_string(), other: other.to_string(), vsid };
            self.problem(path, kind);
        } else {
            taken.macs.insert((slot, mac.0), path.clone());
        }
    }

    /// A host with interfaces needs uplinks, and has a limited number of vports.
    pub(super) fn hosts_have_room(&mut self, bundle: &Bundle) {
        let mut counts = vec![0_usize; bundle.servers.len()];
        for host in self.fabric.interfaces.iter().filter_map(|i| i.host) {
            counts[host] += 1;
        }
        for (server, count) in bundle.servers.iter().zip(counts) {
            let path = ResourcePath::top(Collection::Servers, &server.resource_id);
            if count > VPORTS {
                self.problem(&path, Kind::TooManyInterfaces { count });
            }
            if count > 0 && server.spec().network_interfaces.is_empty() {
                self.problem(&path, Kind::NoUplinks { count });
            }
        }
    }
}
