//! `logicalNetworks`: the provider's networks, with the subnets of provider addresses.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Resource;

/// A provider network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LogicalNetwork {
    /// Whether it may carry virtual networks. Left out: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_virtualization_enabled: Option<bool>,
    /// Its subnets.
    pub subnets: Vec<Resource<LogicalSubnet>>,
}

/// A subnet of provider addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LogicalSubnet {
    /// `192.168.1.0/24`.
    pub address_prefix: String,
    /// VLAN of the outer frames, 1 to 4094; 0 or left out: untagged.
    #[serde(rename = "vlanID", skip_serializing_if = "Option::is_none")]
    pub vlan_id: Option<u64>,
    /// Routers towards the other subnets; the first is used.
    pub default_gateways: Vec<String>,
    /// The largest IP packet the subnet carries. Left out: 1600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u64>,
    /// Pools of provider addresses for uplinks that name none.
    pub ip_pools: Vec<Resource<IpPool>>,
}

/// A pool: a range of provider addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IpPool {
    /// First address.
    pub start_ip_address: String,
    /// Last address.
    pub end_ip_address: String,
}
