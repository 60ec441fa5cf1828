//! Counters, and drops by reason.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Counters of one port. Packets are wire segments; bytes are inner bytes with the Ethernet header, without FCS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortCounters {
    /// Packets received from this port.
    pub in_packets: u64,
    /// Bytes received from this port.
    pub in_bytes: u64,
    /// Packets sent to this port.
    pub out_packets: u64,
    /// Bytes sent to this port.
    pub out_bytes: u64,
    /// Packets from or to this port that were dropped.
    pub drops: u64,
}

/// All counters of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CountersView {
    /// By vport: `0 web` and so on.
    pub vports: BTreeMap<String, PortCounters>,
    /// By uplink: `uplink0`, `uplink1`.
    pub uplinks: BTreeMap<String, PortCounters>,
    /// Flow records.
    pub flows: Usage,
    /// Connections that the slow path tracks.
    pub connections: Usage,
    /// By worker of the switch; empty on a NIC.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<u16, WorkerCounters>,
    /// The NIC's own, by name.
    pub nic: BTreeMap<String, u64>,
    /// The slow path's, by name: `upcalls` and others.
    pub host: BTreeMap<String, u64>,
    /// Seconds since these were read, where the datapath does not answer now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<u64>,
}

/// Load of a worker of the switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerCounters {
    /// Vports that it serves.
    pub vports: u64,
    /// Milliseconds since its start that it spent on packets.
    pub busy_ms: u64,
    /// Flow records.
    pub flows: Usage,
    /// Packet buffers.
    pub buffers: Usage,
}

/// How much of something is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// How many there are.
    pub used: u64,
    /// How many there can be.
    pub capacity: u64,
}

/// Drops by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DropsView {
    /// Each reason that has dropped something.
    pub drops: Vec<DropEntry>,
    /// Their sum.
    pub total: u64,
    /// Seconds since these were read, where the datapath does not answer now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<u64>,
}

/// Drops of one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DropEntry {
    /// The reason's word.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// What dropped them: `nic` or `software`.
    pub by: String,
    /// The reason in a sentence; may be empty.
    pub meaning: String,
    /// Of frames that were too long: the ports that they were too long for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<LengthDrop>,
}

/// Frames that were too long for a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LengthDrop {
    /// `vport 3` or `uplink 0`.
    pub port: String,
    /// Packets, since the port was attached.
    pub packets: u64,
    /// Longest IP packet that it sends, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}
