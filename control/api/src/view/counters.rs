//! Counters, and drops by reason.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Counters of one port. Packets are wire segments; bytes are inner bytes with the Ethernet header, without FCS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortCounters {
    /// Packets into the NIC from this port.
    pub in_packets: u64,
    /// Bytes into the NIC from this port.
    pub in_bytes: u64,
    /// Packets out of the NIC to this port.
    pub out_packets: u64,
    /// Bytes out of the NIC to this port.
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
    /// By thread of the software path, where there are any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<u16, WorkerCounters>,
    /// The NIC's own, by name.
    pub nic: BTreeMap<String, u64>,
    /// The host's slow path's, by name.
    pub host: BTreeMap<String, u64>,
}

/// What a thread of the software path has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerCounters {
    /// Vports that it serves.
    pub vports: u64,
    /// Milliseconds, since it was started, in which there was something to do.
    pub busy_ms: u64,
}

/// Drops by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DropsView {
    /// Each reason that has dropped something.
    pub drops: Vec<DropEntry>,
    /// Their sum.
    pub total: u64,
}

/// Drops of one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DropEntry {
    /// The reason's word.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Who dropped them: `nic` or `host`.
    pub by: String,
    /// The reason in a sentence; may be empty.
    pub meaning: String,
}
