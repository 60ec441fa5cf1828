//! Rules of access control lists, with what they decided.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A rule of an access control list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleView {
    /// The list's resource id.
    pub list: String,
    /// `inbound` (to the virtual machine) or `outbound`.
    pub direction: String,
    /// The rule's resource id; `default` for what the list does without one.
    pub rule: String,
    /// The lowest is checked first; the default has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// `allow` or `deny`.
    pub action: String,
    /// How often it allowed or denied a connection, or a packet that belongs to none, since the daemon started.
    pub hits: u64,
}
