//! `virtualNetworks` and their `subnets`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Protocol, Reference, Resource};

/// A tenant's virtual network: one routing domain, the boundary of isolation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualNetwork {
    /// RDID, a GUID. Left out: the daemon derives one from the resource's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_domain_id: Option<String>,
    /// The prefixes the tenant uses; every subnet lies in one of them. Empty: no such check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_space: Option<AddressSpace>,
    /// The logical network that carries it. Left out: any that is enabled for network virtualisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_network: Option<Reference>,
    /// Encapsulation of this network. Left out: what the virtual network manager says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_virtualization_protocol: Option<Protocol>,
    /// The virtual subnets.
    pub subnets: Vec<Resource<VirtualSubnet>>,
}

/// The prefixes a tenant uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AddressSpace {
    /// `10.1.0.0/16`, ...
    pub address_prefixes: Vec<String>,
}

/// A virtual subnet: one broadcast domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualSubnet {
    /// `10.1.1.0/24`. Its lowest address is the router's.
    pub address_prefix: String,
    /// VSID, 4096 to 16777214, used once in the whole fabric. Left out: a free one of the range, chosen by the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_subnet_id: Option<u64>,
    /// ACL for every interface of the subnet, beside the interface's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_control_list: Option<Reference>,
}
