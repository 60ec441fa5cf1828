//! `accessControlLists` and their `aclRules`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Resource;

/// A list of rules, for subnets and interfaces to refer to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessControlList {
    /// Action on packets to the virtual machine that match no rule. Left out: `Allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_default_action: Option<RuleAction>,
    /// Action on packets from the virtual machine that match no rule. Left out: `Allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_default_action: Option<RuleAction>,
    /// The rules.
    pub acl_rules: Vec<Resource<AclRule>>,
}

/// One rule. Left-out matches match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AclRule {
    /// `TCP`, `UDP`, `ICMP`, `ICMPv6`, `All`, or an IP protocol number.
    pub protocol: String,
    /// `*`, `80` or `1024-2047`. Only for TCP and UDP.
    pub source_port_range: String,
    /// `*`, `80` or `1024-2047`. Only for TCP and UDP.
    pub destination_port_range: String,
    /// `*` or a prefix.
    pub source_address_prefix: String,
    /// `*` or a prefix.
    pub destination_address_prefix: String,
    /// Action on matching packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<RuleAction>,
    /// Direction, as seen by the virtual machine.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// 1 to 65535; the lowest number is checked first; unique per direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u64>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum RuleAction {
    /// The packet passes.
    Allow,
    /// The packet is dropped.
    Deny,
}

/// Direction, as seen by the virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Direction {
    /// Towards the virtual machine.
    Inbound,
    /// From the virtual machine.
    Outbound,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Direction::Inbound => "Inbound",
            Direction::Outbound => "Outbound",
        })
    }
}
