//! `virtualNetworkManager/configuration`: settings of all virtual networks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Settings of all virtual networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkManager {
    /// Encapsulation where a virtual network says nothing. Left out: `VXLAN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_virtualization_protocol: Option<Protocol>,
    /// Whether hosts route between a network's subnets. Left out: `Enabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distributed_router_state: Option<DistributedRouterState>,
    /// The VSIDs that may be used. Left out: 4096 to 16777214.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_subnet_id_range: Option<VsidRange>,
    /// MAC address of the distributed router on every host. Left out: 02-43-56-00-00-01.
    #[schema(format = "mac")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub router_mac_address: String,
}

/// Encapsulation on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 7348.
    #[default]
    Vxlan,
    /// RFC 7637.
    Nvgre,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Vxlan => "VXLAN",
            Protocol::Nvgre => "NVGRE",
        })
    }
}

/// Whether hosts route between a network's subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum DistributedRouterState {
    /// Hosts route.
    Enabled,
    /// Subnets of one network reach each other only through a virtual machine that routes.
    Disabled,
}

/// A range of VSIDs, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VsidRange {
    /// First.
    pub start: u64,
    /// Last.
    pub end: u64,
}

impl Default for VsidRange {
    fn default() -> Self {
        Self { start: 4096, end: (1 << 24) - 2 }
    }
}
