//! `servers`: the hosts, their uplinks and provider addresses.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Reference, Resource};

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// The host's MAC ports, the members of its team: at most two.
    pub network_interfaces: Vec<Resource<Uplink>>,
}

/// A MAC port of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Uplink {
    /// Number of the MAC port on the NIC, 0 or 1. Left out: its place in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink: Option<u64>,
    /// The subnet of a logical network that it is plugged into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_subnet: Option<Reference>,
    /// Its provider address. Left out: the first free one of the subnet's pools.
    pub provider_address: String,
    /// Its MAC address. Left out: a locally administered one made from the provider address.
    #[schema(format = "mac")]
    pub mac_address: String,
}
