//! References between resources.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A reference to another resource: `{"resourceRef": "/virtualNetworks/contoso/subnets/sql"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// Path of the resource, without the API's prefix.
    pub resource_ref: String,
}

impl Reference {
    /// A reference to `path`.
    pub fn to(path: &str) -> Self {
        Self { resource_ref: path.to_owned() }
    }
}
