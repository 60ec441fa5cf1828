//! Vports and the mappings behind them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PortCounters;
use crate::Offload;

/// One virtual NIC's attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VportView {
    /// Number on this host.
    pub id: u16,
    /// The network interface's resource id.
    pub name: String,
    /// The virtual network's resource id.
    pub virtual_network: String,
    /// MAC address.
    pub mac: String,
    /// Customer addresses.
    pub addresses: Vec<String>,
    /// VSID.
    pub vsid: u32,
    /// RDID.
    pub rdid: String,
    /// What policy asks for.
    pub requested: Offload,
    /// What serves it.
    pub served_by: Offload,
    /// Why it is not what was asked for; may be empty.
    pub reason: String,
    /// Number of the virtual function, where one serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vf: Option<u16>,
    /// Number of the receive queue, where one serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmq: Option<u16>,
    /// Number of the switch's worker, where one serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u16>,
    /// Where the virtual machine attaches: the socket or the PCI address of its virtual function, or without one
    /// `vhost-user:` and a socket or `tap:` and an interface; may be empty.
    pub attachment: String,
    /// Whether a driver has bound it, or why none can.
    pub state: VportState,
    /// Why its state is not `up`, and what to do; may be empty.
    pub state_reason: String,
    /// Largest IP packet.
    pub mtu: u16,
    /// Policy generation.
    pub generation: u32,
    /// The uplink it is pinned to.
    pub uplink: u8,
    /// Its counters.
    pub counters: PortCounters,
    /// Its dropped packets by reason, as far as the host knows the reasons: on a NIC, which counts only the sum of a vport's
    /// drops, those of the slow path and of the VMQ bridge.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub drop_reasons: BTreeMap<String, u64>,
    /// Seconds since its state and counters were read, where the datapath does not answer now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<u64>,
}

/// State of a vport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VportState {
    /// Set up; no driver has bound it.
    #[default]
    Down,
    /// A driver has bound it.
    Up,
    /// Its queues are stopped after a fault.
    Stopped,
    /// Its port is being opened.
    Opening,
    /// Its port cannot be opened, or the policy that has it is not applied; it is tried again.
    Failed,
}

impl VportState {
    /// The word in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            VportState::Down => "down",
            VportState::Up => "up",
            VportState::Stopped => "stopped",
            VportState::Opening => "opening",
            VportState::Failed => "failed",
        }
    }
}

/// Location of a customer address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MappingView {
    /// The virtual network's resource id.
    pub virtual_network: String,
    /// RDID.
    pub rdid: String,
    /// VSID.
    pub vsid: u32,
    /// Customer address.
    pub ca: String,
    /// MAC address.
    pub mac: String,
    /// Provider addresses, the one used first.
    pub pas: Vec<String>,
    /// The server it is on.
    pub server: String,
    /// The vport, where it is on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vport: Option<u16>,
}
