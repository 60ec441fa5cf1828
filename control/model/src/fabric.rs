//! The checked policy: a graph whose references are valid indices.

use std::net::IpAddr;

use culvert_api::{Direction, Offload, Protocol, RuleAction, SoftwarePort, Warning};
use culvert_packet::{Encap, MacAddr, Prefix, Rdid, VlanId, Vsid};

use crate::indices::fingerprint;

/// A checked policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fabric {
    /// Settings of all networks.
    pub settings: Settings,
    /// Subnets of the provider's networks.
    pub provider_subnets: Vec<ProviderSubnet>,
    /// Hosts.
    pub hosts: Vec<Host>,
    /// Access control lists.
    pub acls: Vec<Acl>,
    /// Tenants' networks.
    pub networks: Vec<Network>,
    /// Virtual machines' interfaces.
    pub interfaces: Vec<Interface>,
}

/// A fabric with warnings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The policy.
    pub fabric: Fabric,
    /// One sentence each: the first hundred.
    pub warnings: Vec<Warning>,
    /// Warnings beyond those.
    pub more_warnings: usize,
}

/// Settings of all networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether hosts route between a network's subnets.
    pub distributed_router: bool,
    /// The router's MAC address, the same on every host.
    pub router_mac: MacAddr,
}

impl Default for Settings {
    fn default() -> Self {
        Self { distributed_router: true, router_mac: MacAddr([0x02, 0x43, 0x56, 0, 0, 1]) }
    }
}

/// A subnet of provider addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSubnet {
    /// `/logicalNetworks/pa/subnets/east`.
    pub path: String,
    /// Its addresses.
    pub prefix: Prefix,
    /// VLAN of the outer frames; none: untagged.
    pub vlan: Option<VlanId>,
    /// Router towards other provider subnets.
    pub gateway: Option<IpAddr>,
    /// Largest IP packet.
    pub mtu: u16,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The server's resource id.
    pub name: String,
    /// Its MAC ports, by number.
    pub uplinks: Vec<HostUplink>,
}

/// A MAC port of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUplink {
    /// 0 or 1.
    pub number: u8,
    /// Index into [`Fabric::provider_subnets`].
    pub subnet: usize,
    /// Its provider address.
    pub pa: IpAddr,
    /// Its MAC address.
    pub mac: MacAddr,
}

/// An access control list, rules in the order in which they are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Resource id.
    pub name: String,
    /// For packets towards the virtual machine that no rule names.
    pub inbound_default: RuleAction,
    /// For packets of the virtual machine that no rule names.
    pub outbound_default: RuleAction,
    /// By direction and priority.
    pub rules: Vec<AclEntry>,
}

/// A rule. `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Resource id.
    pub name: String,
    /// Which packets, as seen by the virtual machine.
    pub direction: Direction,
    /// The lowest is checked first.
    pub priority: u16,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source ports.
    pub source_ports: Option<PortRange>,
    /// Destination ports.
    pub destination_ports: Option<PortRange>,
    /// Source addresses.
    pub source: Option<Prefix>,
    /// Destination addresses.
    pub destination: Option<Prefix>,
    /// What happens.
    pub action: RuleAction,
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

/// A tenant's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Resource id.
    pub name: String,
    /// Routing domain.
    pub rdid: Rdid,
    /// Encapsulation.
    pub protocol: Protocol,
    /// Its broadcast domains.
    pub subnets: Vec<Subnet>,
}

/// A broadcast domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Resource id.
    pub name: String,
    /// VSID.
    pub vsid: Vsid,
    /// Its addresses; the lowest is the router's.
    pub prefix: Prefix,
    /// Index into [`Fabric::acls`].
    pub acl: Option<usize>,
}

/// A virtual machine's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Resource id.
    pub name: String,
    /// MAC address.
    pub mac: MacAddr,
    /// Index into [`Fabric::hosts`]; none: it is on no host now.
    pub host: Option<usize>,
    /// Index into [`Fabric::networks`].
    pub network: usize,
    /// Index into [`Network::subnets`].
    pub subnet: usize,
    /// Customer addresses.
    pub addresses: Vec<IpAddr>,
    /// Index into [`Fabric::acls`]: its own. Its subnet's applies too.
    pub acl: Option<usize>,
    /// What serves it, if the host has it.
    pub offload: Offload,
    /// Kind of port where no VF serves it; none: the host's default.
    pub software_port: Option<SoftwarePort>,
    /// The uplink that policy pins it to.
    pub uplink: Option<u8>,
}

impl Fabric {
    /// Index of a host by name, in any case.
    pub fn host(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|h| h.name.eq_ignore_ascii_case(name))
    }

    /// The subnet of an interface.
    pub fn subnet_of(&self, interface: &Interface) -> Option<(&Network, &Subnet)> {
        let network = self.networks.get(interface.network)?;
        Some((network, network.subnets.get(interface.subnet)?))
    }

    /// What an interface can reach: its network where hosts route, its subnet where they do not.
    pub(crate) fn scope(&self, interface: &Interface) -> (usize, usize) {
        let subnet = if self.settings.distributed_router { 0 } else { interface.subnet };
        (interface.network, subnet)
    }

    /// The uplink that carries an interface: the policy's choice, or one chosen by name, the same on every host.
    pub(crate) fn uplink_of(&self, interface: &Interface) -> Option<&HostUplink> {
        let uplinks = &self.hosts.get(interface.host?)?.uplinks;
        let chosen = uplinks.iter().find(|u| Some(u.number) == interface.uplink);
        let by_name = || {
            let hash = fingerprint(&interface.name.to_ascii_lowercase());
            uplinks.get(hash as usize % uplinks.len().max(1))
        };
        chosen.or_else(by_name)
    }

    /// Largest IP packet a virtual machine may send: what every provider subnet can carry with the largest outer
    /// headers (IPv6, UDP, VXLAN, inner Ethernet: 70 bytes), at most 1500.
    pub fn vm_mtu(&self) -> u16 {
        let pa = self.provider_subnets.iter().map(|s| s.mtu).min().unwrap_or(Self::DEFAULT_PA_MTU);
        pa.saturating_sub(Self::OVERHEAD).min(1500)
    }

    /// The outer headers' share of the provider network's MTU.
    pub const OVERHEAD: u16 = 70;
    /// The provider network's MTU where a policy says nothing.
    pub const DEFAULT_PA_MTU: u16 = 1600;
}

impl Network {
    /// The encapsulation of its packets.
    pub(crate) fn encap(&self) -> Encap {
        match self.protocol {
            Protocol::Vxlan => Encap::Vxlan,
            Protocol::Nvgre => Encap::Nvgre,
        }
    }
}
