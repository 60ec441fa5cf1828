//! Tracing: the policy's decision on one packet, without changing anything.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A packet to trace: in at a vport or an uplink, given as bytes or as a tuple.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TraceRequest {
    /// Where it comes in: a vport's number, a network interface's resource id, `uplink0` or `uplink1`.
    pub port: String,
    /// The whole frame, in hexadecimal digits. Left out: made from `tuple`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub frame: String,
    /// The packet in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuple: Option<TraceTuple>,
}

/// A packet in words. Left-out MAC and source addresses are the vport's own and the right next hop's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TraceTuple {
    /// Source address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Destination address.
    pub destination: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Source port; left out: 49152.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Length of the IP packet in bytes; left out: as short as it can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// Source MAC.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_mac: String,
    /// Destination MAC.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_mac: String,
}

/// The decision on the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TraceReply {
    /// What happens to it.
    pub verdict: Verdict,
    /// Why it is dropped or not offloaded; may be empty.
    pub reason: String,
    /// Every layer that was asked, in order.
    pub layers: Vec<TraceHop>,
    /// Where copies leave: `vport 3`, `uplink 0`.
    pub outputs: Vec<String>,
    /// The composed header actions, in words.
    pub actions: Vec<String>,
    /// The frame as it would leave, in hexadecimal digits; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub frame: String,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It leaves at one port.
    Forward,
    /// Copies leave at several.
    Replicate,
    /// The host answers it itself (ARP, ICMP to the router).
    Reply,
    /// It is dropped.
    #[default]
    Drop,
}

impl Verdict {
    /// The word in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Forward => "forward",
            Verdict::Replicate => "replicate",
            Verdict::Reply => "reply",
            Verdict::Drop => "drop",
        }
    }
}

/// What one layer did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TraceHop {
    /// The layer.
    pub layer: String,
    /// The vport whose layer it is, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vport: Option<u16>,
    /// The rule that matched, or `default`.
    pub rule: String,
    /// What the layer did.
    pub action: String,
}
