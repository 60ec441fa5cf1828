//! Problems of a policy. Each names the thing, the value and the remedy.

use std::fmt;

use culvert_api::{ErrorBody, MAX_LISTED, Warning};
use culvert_packet::Prefix;
use thiserror::Error;

/// A problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the resource.
    pub target: String,
    /// What is wrong with it.
    pub kind: Kind,
}

/// The problems of a policy: a bounded number, and how many there are; and what is unusual beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// The first [`MAX_LISTED`].
    pub list: Vec<Problem>,
    /// Problems beyond those.
    pub more: usize,
    /// What is unusual, but not wrong: the first [`MAX_LISTED`].
    pub warnings: Vec<Warning>,
    /// Warnings beyond those.
    pub more_warnings: usize,
}

impl Problems {
    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// The error as an answer shows it, with the warnings.
    pub fn body(&self) -> ErrorBody {
        let details = self.list.iter().map(ErrorBody::from).collect();
        let mut body = ErrorBody::many("InvalidPolicy", "the policy", details, self.more);
        body.warnings.clone_from(&self.warnings);
        body.more_warnings = self.more_warnings;
        body
    }

    pub(crate) fn add(&mut self, make: impl FnOnce() -> Problem) {
        if self.list.len() < MAX_LISTED {
            self.list.push(make());
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn warn(&mut self, make: impl FnOnce() -> Warning) {
        if self.warnings.len() < MAX_LISTED {
            self.warnings.push(make());
        } else {
            self.more_warnings += 1;
        }
    }
}

/// What is wrong with a resource. Texts are values as the policy has them; `other` is the path of the resource that
/// it collides with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the message beside each variant says what its fields are")]
pub enum Kind {
    #[error("{property} is missing")]
    Missing { property: &'static str, example: &'static str },
    #[error("{property} \"{value}\" is not an address")]
    BadAddress { property: &'static str, value: String },
    #[error("{property} \"{value}\" {why}")]
    BadPrefix { property: &'static str, value: String, why: &'static str, meant: Option<Prefix> },
    #[error("{property} \"{value}\" cannot be a host's MAC address: it is a group address, or zero")]
    BadMac { property: &'static str, value: String },
    #[error("routingDomainId \"{value}\" is not a GUID, or is zero")]
    BadRdid { value: String },
    #[error("routingDomainId {value} is already that of {other}")]
    RdidInUse { value: String, other: String },
    #[error("VSID {value} is outside {start} to {end}")]
    VsidOutOfRange { value: u64, start: u64, end: u64 },
    #[error("virtualSubnetIdRange {start} to {end} is not a range within 4096 to 16777214")]
    BadVsidRange { start: u64, end: u64 },
    #[error("has no virtualSubnetId, and {start} to {end} are used up")]
    VsidsExhausted { start: u64, end: u64 },
    #[error("VSID {value} is already that of {other}")]
    VsidInUse { value: u64, other: String },
    #[error("prefix {value} overlaps {other_value} of {other}, in the same routing domain")]
    PrefixOverlap { value: String, other: String, other_value: String },
    #[error("prefix {value} is outside the network's address space {space}")]
    PrefixOutsideSpace { value: String, space: String },
    #[error("prefix {value} has no room for a router and a virtual machine")]
    PrefixTooSmall { value: String },
    #[error("address {value} is outside its subnet's prefix {prefix}")]
    AddressOutsideSubnet { value: String, prefix: String },
    #[error("address {value} is the router's: the lowest of {prefix}")]
    GatewayAddress { value: String, prefix: String },
    #[error("address {value} is the {which} address of {prefix}")]
    ReservedAddress { value: String, which: &'static str, prefix: String },
    #[error("address {value} is already that of {other}, in the same routing domain")]
    DuplicateAddress { value: String, other: String },
    #[error("MAC address {value} is already that of {other}, in VSID {vsid}")]
    DuplicateMac { value: String, other: String, vsid: u32 },
    #[error("MAC address {value} is the distributed router's")]
    RouterMac { value: String },
    #[error("{property} refers to \"{value}\", but there is no such {what}")]
    UnknownReference {
        property: &'static str,
        value: String,
        what: &'static str,
        wanted: &'static str,
        near: Option<String>,
    },
    #[error("{property} refers to \"{value}\", whose logical network may not carry virtual networks")]
    NotEnabled { property: &'static str, value: String },
    #[error("its addresses are in two subnets, {one} and {other}")]
    TwoSubnets { one: String, other: String },
    #[error("provider address {value} is outside every subnet of the logical networks")]
    PaOutside { value: String },
    #[error("provider address {value} is outside {subnet} ({prefix})")]
    PaOutsideSubnet { value: String, subnet: String, prefix: String },
    #[error("provider address {value} is already that of {other}")]
    PaInUse { value: String, other: String },
    #[error("provider address {value} is IPv6; hosts carry tenants' packets over IPv4")]
    PaFamily { value: String },
    #[error("provider address {value} is the {which}")]
    PaReserved { value: String, which: &'static str },
    #[error("has no providerAddress, and {subnet} has no ipPools to take one from")]
    NoPool { subnet: String },
    #[error("has no providerAddress, and the pools of {subnet} ({size} addresses) are used up")]
    PoolExhausted { subnet: String, size: u128 },
    #[error("pool {start} to {end} is not a range within {prefix}")]
    BadPool { start: String, end: String, prefix: String },
    #[error("gateway {value} is outside {prefix}")]
    GatewayOutside { value: String, prefix: String },
    #[error("MTU {value} leaves virtual machines {left} bytes after the outer headers' 70; IPv6 needs 1280")]
    MtuTooSmall { value: u64, left: u64 },
    #[error("MTU {value} is more than the 9216 bytes that Ethernet ports take")]
    MtuTooLarge { value: u64 },
    #[error("VLAN {value} is outside 1 to 4094")]
    BadVlan { value: u64 },
    #[error("has {count} uplinks; a NIC has two MAC ports")]
    TooManyUplinks { count: usize },
    #[error("uplink {value} is not 0 or 1")]
    BadUplink { value: u64 },
    #[error("uplink {value} is not one of {host}")]
    NoSuchUplink { value: u64, host: String },
    #[error("uplink {value} is already that of {other}")]
    UplinkInUse { value: u64, other: String },
    #[error("has no uplinks, but {count} network interfaces")]
    NoUplinks { count: usize },
    #[error("{count} network interfaces; a host has room for 1024")]
    TooManyInterfaces { count: usize },
    #[error("{property} \"{value}\" is not a range of ports")]
    BadPorts { property: &'static str, value: String },
    #[error("{property} \"{value}\" needs protocol TCP or UDP, not \"{protocol}\"")]
    PortsNeedProtocol { property: &'static str, value: String, protocol: String },
    #[error("protocol \"{value}\" is not known")]
    BadProtocol { value: String },
    #[error("matches {source_prefix} to {destination}: two address families")]
    TwoFamilies { source_prefix: String, destination: String },
    #[error("priority {value} is outside 1 to 65535")]
    BadPriority { value: u64 },
    #[error("priority {value} is already that of {other}, for {direction} packets")]
    DuplicatePriority { value: u16, direction: String, other: String },
    #[error("virtualNetworkManager has one resource, configuration")]
    NotTheSingleton,
}

impl Kind {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Kind::Missing { property, example } => format!("add it, for example \"{property}\": {example}"),
            Kind::BadAddress { .. } => "write an IPv4 or IPv6 address such as 10.1.1.11".into(),
            Kind::BadPrefix { meant: Some(prefix), .. } => format!("write {prefix}"),
            Kind::BadPrefix { .. } => "write a prefix such as 10.1.1.0/24".into(),
            Kind::BadMac { .. } => {
                "use a unicast address: the second digit even, such as 00-1D-D8-07-00-01".into()
            }
            Kind::BadRdid { .. } => {
                "write a GUID such as 11111111-2222-3333-4444-555555555555, or leave it out".into()
            }
            Kind::RdidInUse { .. } => "give each virtual network its own GUID, or leave it out".into(),
            Kind::VsidOutOfRange { start, end, .. } => format!("choose a free VSID from {start} to {end}"),
            Kind::BadVsidRange { .. } => "choose start and end within 4096 to 16777214, start first".into(),
            Kind::VsidsExhausted { .. } => "widen virtualSubnetIdRange of virtualNetworkManager".into(),
            Kind::VsidInUse { .. } => "give each virtual subnet of the fabric its own VSID".into(),
            Kind::PrefixOverlap { .. } => {
                "give the subnets of one network prefixes that do not overlap; another network may reuse them"
                    .into()
            }
            Kind::PrefixOutsideSpace { .. } => {
                "choose a prefix inside it, or add the prefix to addressSpace".into()
            }
            Kind::PrefixTooSmall { .. } => "use at most /30 for IPv4 and /126 for IPv6".into(),
            Kind::AddressOutsideSubnet { prefix, .. } => {
                format!("choose an address in {prefix}, or refer to the subnet that holds this one")
            }
            Kind::GatewayAddress { .. } => "give the virtual machine another address of the subnet".into(),
            Kind::ReservedAddress { prefix, .. } => {
                format!("choose an address inside {prefix}, not at its ends")
            }
            Kind::DuplicateAddress { .. } => "give each interface of a network its own address".into(),
            Kind::DuplicateMac { .. } => "give each interface of a subnet its own MAC address".into(),
            Kind::RouterMac { .. } => {
                "choose another, or set routerMacAddress of virtualNetworkManager".into()
            }
            Kind::UnknownReference { near: Some(near), .. } => format!("write {near}, or add the resource"),
            Kind::UnknownReference { wanted, .. } => {
                format!("write {wanted} of a resource of this policy, or add it")
            }
            Kind::NotEnabled { .. } => {
                "set its networkVirtualizationEnabled to true, or choose another subnet".into()
            }
            Kind::TwoSubnets { .. } => {
                "keep one subnet per interface; add a second network interface for the other".into()
            }
            Kind::PaOutside { .. } => {
                "add a logical network with a subnet that holds it, or correct the address".into()
            }
            Kind::PaOutsideSubnet { prefix, .. } => {
                format!("choose an address in {prefix}, or another logicalSubnet")
            }
            Kind::PaInUse { .. } => "give each uplink of the fabric its own provider address".into(),
            Kind::PaFamily { .. } => "use an IPv4 provider address".into(),
            Kind::PaReserved { .. } => "choose another address of the subnet".into(),
            Kind::NoPool { .. } => "give the uplink a providerAddress, or the subnet an ipPool".into(),
            Kind::PoolExhausted { .. } => "add or widen an ipPool of that subnet".into(),
            Kind::BadPool { .. } => {
                "choose startIpAddress and endIpAddress within the subnet, start first".into()
            }
            Kind::GatewayOutside { .. } => "give the address that the router has in this subnet".into(),
            Kind::MtuTooSmall { .. } => "set at least 1350, better 1600, on the network and here".into(),
            Kind::MtuTooLarge { .. } => "set at most 9216".into(),
            Kind::BadVlan { .. } => "choose 1 to 4094, or leave it out for untagged frames".into(),
            Kind::TooManyUplinks { .. } => "keep two".into(),
            Kind::BadUplink { .. } => "write 0 or 1, or leave it out".into(),
            Kind::NoSuchUplink { .. } => "choose one that the server has, or leave it out".into(),
            Kind::UplinkInUse { .. } => "give each uplink of a server its own number".into(),
            Kind::NoUplinks { .. } => "add networkInterfaces with provider addresses to the server".into(),
            Kind::TooManyInterfaces { .. } => "place some of them on other servers".into(),
            Kind::BadPorts { .. } => "write *, a port such as 80, or a range such as 1024-2047".into(),
            Kind::PortsNeedProtocol { .. } => "set the protocol to TCP or UDP, or the range to *".into(),
            Kind::BadProtocol { .. } => "write TCP, UDP, ICMP, ICMPv6, All, or a number from 0 to 255".into(),
            Kind::TwoFamilies { .. } => "write two rules, one for each family".into(),
            Kind::BadPriority { .. } => "choose 1 (asked first) to 65535".into(),
            Kind::DuplicatePriority { .. } => "give each rule of a direction its own priority".into(),
            Kind::NotTheSingleton => "name it configuration, and have only one".into(),
        }
    }

    /// Error code for programs: the variant's name.
    pub fn code(&self) -> String {
        let debug = format!("{self:?}");
        debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.target, self.kind)
    }
}

impl std::error::Error for Problem {}

impl From<&Problem> for ErrorBody {
    fn from(problem: &Problem) -> Self {
        ErrorBody::new(&problem.kind.code(), problem.to_string(), &problem.target, problem.kind.remedy())
    }
}
