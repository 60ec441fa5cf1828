//! Records of the flow table.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One record of the flow table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowView {
    /// Number of the record.
    pub id: u64,
    /// `outbound` (from a vport) or `inbound` (from the wire).
    pub direction: String,
    /// The vport it comes from or goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vport: Option<u16>,
    /// VSID.
    pub vsid: u32,
    /// Inner source MAC.
    pub source_mac: String,
    /// Inner destination MAC.
    pub destination_mac: String,
    /// Source address; empty where the packet has none.
    pub source: String,
    /// Destination address; empty where the packet has none.
    pub destination: String,
    /// `TCP`, `UDP`, `ICMP`, a number, or an EtherType.
    pub protocol: String,
    /// Source port, or ICMP type.
    pub source_port: u16,
    /// Destination port, or ICMP id.
    pub destination_port: u16,
    /// Its actions in words: `route, VXLAN 5001 192.168.1.10 -> 192.168.2.20, uplink 0`.
    pub action: String,
    /// Where it is.
    pub state: FlowState,
    /// Why it is not in the NIC; may be empty.
    pub not_offloaded: String,
    /// Packets (wire segments).
    pub packets: u64,
    /// Bytes of inner frames, Ethernet header included, FCS not.
    pub bytes: u64,
    /// Milliseconds since it was last used.
    pub idle_ms: u32,
}

/// What forwards a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// The host is deciding on it; its packets wait, in order.
    Pending,
    /// The NIC.
    Offloaded,
    /// Software on the host.
    #[default]
    Software,
}

impl FlowState {
    /// The word in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowState::Pending => "pending",
            FlowState::Offloaded => "offloaded",
            FlowState::Software => "software",
        }
    }
}

/// Which flows to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowQuery {
    /// Only of this vport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vport: Option<u16>,
    /// Only of this VSID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsid: Option<u32>,
    /// At most this many; left out: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}
