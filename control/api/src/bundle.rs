//! A bundle: a whole policy as one document.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::view::ProgressView;
use crate::{
    AccessControlList, AnyResource, LogicalNetwork, NetworkInterface, NetworkManager, Resource, Server,
    VirtualNetwork, Warning,
};

/// A whole policy: every collection with its resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Bundle {
    /// At most one resource, `configuration`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtual_network_manager: Vec<Arc<Resource<NetworkManager>>>,
    /// Provider networks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logical_networks: Vec<Arc<Resource<LogicalNetwork>>>,
    /// Hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Arc<Resource<Server>>>,
    /// ACLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_lists: Vec<Arc<Resource<AccessControlList>>>,
    /// Tenants' networks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtual_networks: Vec<Arc<Resource<VirtualNetwork>>>,
    /// Virtual machines' interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_interfaces: Vec<Arc<Resource<NetworkInterface>>>,
}

/// A document that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The policy.
    pub bundle: Bundle,
    /// What was left out of it: the first hundred.
    pub warnings: Vec<Warning>,
    /// Warnings beyond those.
    pub more_warnings: usize,
}

/// What applying a bundle does to resources that it does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApplyMode {
    /// They are deleted: the bundle is the whole policy.
    #[default]
    Replace,
    /// They stay.
    Merge,
}

/// What applying a bundle did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplyReply {
    /// Paths of new resources.
    pub created: Vec<String>,
    /// Paths of changed resources.
    pub updated: Vec<String>,
    /// Paths of removed resources.
    pub deleted: Vec<String>,
    /// How many resources stayed as they were.
    pub unchanged: usize,
    /// The policy's version on this host: grows with every change.
    pub version: u64,
    /// Whether the datapath carries it out already.
    pub applied: bool,
    /// Why it does not; may be empty.
    pub problem: String,
    /// Which vports and uplinks do not do yet what the policy asks.
    pub progress: ProgressView,
    /// What was left out, and what is odd: at most 100.
    pub warnings: Vec<Warning>,
    /// Warnings beyond those.
    #[serde(skip_serializing_if = "crate::error::is_zero")]
    pub more_warnings: usize,
}

impl Bundle {
    /// Adds a resource.
    pub fn push(&mut self, resource: AnyResource) {
        match resource {
            AnyResource::VirtualNetworkManager(r) => self.virtual_network_manager.push(r),
            AnyResource::LogicalNetworks(r) => self.logical_networks.push(r),
            AnyResource::Servers(r) => self.servers.push(r),
            AnyResource::AccessControlLists(r) => self.access_control_lists.push(r),
            AnyResource::VirtualNetworks(r) => self.virtual_networks.push(r),
            AnyResource::NetworkInterfaces(r) => self.network_interfaces.push(r),
        }
    }

    /// The policy's resources, what is referred to before what refers.
    pub fn into_resources(self) -> impl Iterator<Item = AnyResource> {
        let managers = self.virtual_network_manager.into_iter().map(AnyResource::VirtualNetworkManager);
        managers
            .chain(self.logical_networks.into_iter().map(AnyResource::LogicalNetworks))
            .chain(self.servers.into_iter().map(AnyResource::Servers))
            .chain(self.access_control_lists.into_iter().map(AnyResource::AccessControlLists))
            .chain(self.virtual_networks.into_iter().map(AnyResource::VirtualNetworks))
            .chain(self.network_interfaces.into_iter().map(AnyResource::NetworkInterfaces))
    }
}
