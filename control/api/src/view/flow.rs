//! Records of the flow table.

use core::net::IpAddr;

use culvert_packet::Prefix;
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

/// An address that sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TalkerView {
    /// VSID.
    pub vsid: u32,
    /// Source address; a MAC where the packets have none.
    pub source: String,
    /// Flow records of its packets.
    pub flows: u64,
    /// Packets that these have counted.
    pub packets: u64,
    /// Bytes that these have counted.
    pub bytes: u64,
}

/// Result of deleting flow records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlushReply {
    /// How many were deleted.
    pub flushed: u64,
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

/// Which flows. What is left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowQuery {
    /// Only of this vport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vport: Option<u16>,
    /// Only of this VSID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsid: Option<u32>,
    /// Only with this source or destination: an address or a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Only with this source or destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only of this protocol: `tcp`, `udp`, `icmp`, `icmpv6` or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Only in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<FlowState>,
    /// The order; left out: that of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort: Option<FlowOrder>,
    /// At most this many; left out: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// For deleting: all flows, where no filter is given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// An order of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlowOrder {
    /// Most bytes first.
    Bytes,
    /// Most packets first.
    Packets,
    /// Used last first.
    Idle,
}

impl FlowOrder {
    /// The word in queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowOrder::Bytes => "bytes",
            FlowOrder::Packets => "packets",
            FlowOrder::Idle => "idle",
        }
    }
}

/// The filters of a query, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// As in the query.
    pub vport: Option<u16>,
    /// As in the query.
    pub vsid: Option<u32>,
    /// Source or destination is in it.
    pub address: Option<Prefix>,
    /// As in the query.
    pub port: Option<u16>,
    /// Number of the IP protocol.
    pub protocol: Option<u8>,
    /// As in the query.
    pub state: Option<FlowState>,
}

impl FlowQuery {
    /// Its filters.
    ///
    /// # Errors
    /// A value is no address or protocol: says which, and what it may be.
    pub fn filter(&self) -> Result<FlowFilter, String> {
        let protocol = |text: &String| match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(6),
            "udp" => Ok(17),
            "icmp" => Ok(1),
            "icmpv6" => Ok(58),
            number => number.parse().map_err(|_| {
                format!("protocol \"{text}\": use tcp, udp, icmp, icmpv6 or a number from 0 to 255")
            }),
        };
        let address = |text: &String| match text.parse::<IpAddr>() {
            Ok(address) => Ok(Prefix::of(address, u8::MAX)),
            Err(_) => text.parse::<Prefix>().map_err(|_| {
                format!(
                    "address \"{text}\": use an address such as 10.1.1.11 or a prefix such as 10.1.1.0/24"
                )
            }),
        };
        Ok(FlowFilter {
            vport: self.vport,
            vsid: self.vsid,
            address: self.address.as_ref().map(address).transpose()?,
            port: self.port,
            protocol: self.protocol.as_ref().map(protocol).transpose()?,
            state: self.state,
        })
    }
}
