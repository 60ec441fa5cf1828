//! The NIC: identity, state and offloads.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::UplinkState;

/// A NIC and its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NicInfo {
    /// Where it is: `vfio-user:/run/culvert/pf.sock` or a PCI address.
    pub location: String,
    /// PCI vendor id.
    pub vendor_id: u16,
    /// PCI device id.
    pub device_id: u16,
    /// Vendor's name.
    pub vendor: String,
    /// Device's name.
    pub device: String,
    /// The driver that runs it.
    pub driver: String,
    /// Its firmware.
    pub firmware: FirmwareView,
    /// MAC ports.
    pub uplinks: Vec<UplinkView>,
    /// Virtual functions that it can have.
    pub total_vfs: u16,
    /// Virtual functions enabled now.
    pub num_vfs: u16,
    /// Receive queues of the physical function that filters can steer to.
    pub vmqs: u16,
    /// Records its flow table can hold.
    pub flow_capacity: u64,
    /// Records in it now.
    pub flows: u64,
    /// Its offloads, and why others are missing.
    pub offloads: Vec<OffloadView>,
    /// What is wrong with it; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
    /// Seconds since it last answered, where it does not answer now: this is what was known then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<u64>,
}

/// Firmware of a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FirmwareView {
    /// Its version.
    pub version: String,
    /// Version of the interface between driver and firmware.
    pub abi: String,
    /// Whether it answers.
    pub alive: bool,
    /// How often it was started since the board was.
    pub boot_epoch: u32,
    /// Heartbeats seen.
    pub heartbeat: u64,
}

/// A MAC port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UplinkView {
    /// 0 or 1.
    pub uplink: u8,
    /// Its MAC address.
    pub mac: String,
    /// Whether it has a link.
    pub link: bool,
    /// Its provider address, where policy gives one.
    pub provider_address: String,
    /// Its interface, on a host without a NIC.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Whether it carries the overlay's packets.
    pub state: UplinkState,
    /// Why its state is not `up`, and what to do; may be empty.
    pub state_reason: String,
    /// Longest IP packet of its interface, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Longest IP packet that the policy needs: the virtual machines' MTU with the outer headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed_mtu: Option<u32>,
}

/// An offload that a NIC may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OffloadView {
    /// What: `vxlan-encap`, `nvgre-decap`, `checksum`, ...
    pub feature: String,
    /// Whether the NIC does it.
    pub offloaded: bool,
    /// Why not, or what limits it; may be empty.
    pub reason: String,
}
