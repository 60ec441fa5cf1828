//! The envelope that every resource has, at the top of a collection or inside another resource.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A resource: identity and bookkeeping around its properties (MS-NCNBI 2.2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resource<P> {
    /// The name the client chose: unique within its collection.
    #[serde(default)]
    pub resource_id: String,
    /// Path of this resource, as others refer to it: `/virtualNetworks/contoso`. Set by the daemon.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_ref: String,
    /// GUID: a resource that is deleted and created again gets a new one. Set by the daemon.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance_id: String,
    /// Version of the content, `W/"guid"`, for `If-Match`. Set by the daemon.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub etag: String,
    /// Free labels; the daemon keeps and ignores them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, serde_json::Value>,
    /// The client's own notes; the daemon keeps and ignores them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource_metadata: BTreeMap<String, serde_json::Value>,
    /// The content.
    #[serde(default)]
    pub properties: Properties<P>,
}

impl<P> Resource<P> {
    /// A resource with identity and content; the daemon sets the rest.
    pub fn new(id: &str, spec: P) -> Self {
        Self {
            resource_id: id.to_owned(),
            resource_ref: String::new(),
            instance_id: String::new(),
            etag: String::new(),
            tags: BTreeMap::new(),
            resource_metadata: BTreeMap::new(),
            properties: Properties { spec, provisioning_state: None, configuration_state: None },
        }
    }

    /// What the client wants of this resource.
    pub fn spec(&self) -> &P {
        &self.properties.spec
    }
}

/// The properties object: the content that the client wants, and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Properties<P> {
    /// The content that the client wants.
    #[serde(flatten)]
    pub spec: P,
    /// Whether the daemon has accepted it. Set by the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_state: Option<ProvisioningState>,
    /// Whether the host has applied it. Set by the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_state: Option<ConfigurationState>,
}

/// Progress of a change in the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ProvisioningState {
    /// Being changed.
    Updating,
    /// Accepted.
    Succeeded,
    /// Refused or not applied.
    Failed,
    /// Being removed.
    Deleting,
}

/// The host's state of applying it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationState {
    /// `Success`, `Warning`, `Failure` or `InProgress`.
    pub status: String,
    /// One sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detailed_info: Vec<String>,
}
