//! `networkInterfaces` and their `ipConfigurations`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Reference, Resource};

/// A virtual machine's network interface: becomes a vport on its server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkInterface {
    /// MAC address, twelve hexadecimal digits.
    #[schema(format = "mac")]
    pub private_mac_address: String,
    /// The server the virtual machine runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Reference>,
    /// ACL of the interface; left out: its first IP configuration's. Its subnet's applies too: both must let a packet pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_control_list: Option<Reference>,
    /// What serves the interface, if its host has it. Left out: `vf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
    /// Kind of port where no virtual function serves the interface. Left out: the host's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software_port: Option<SoftwarePort>,
    /// The uplink of its server that carries its packets while it has a link. Left out: chosen by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink: Option<u64>,
    /// The interface's addresses.
    pub ip_configurations: Vec<Resource<IpConfiguration>>,
}

/// What serves an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// A virtual function, owned by the virtual machine.
    #[default]
    Vf,
    /// A receive queue of the physical function, emptied by the host.
    Vmq,
    /// The switch, in software.
    Software,
}

impl Offload {
    /// The word in policies and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Offload::Vf => "vf",
            Offload::Vmq => "vmq",
            Offload::Software => "software",
        }
    }
}

/// Kind of port for a virtual machine without a virtual function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum SoftwarePort {
    /// A TAP: an interface of the host, `vport` with the vport's number, for a bridge. Used as the virtual machine's own
    /// interface, it needs its MAC address.
    #[default]
    Tap,
    /// A vhost-user socket.
    VhostUser,
}

impl SoftwarePort {
    /// The word in policies and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            SoftwarePort::Tap => "tap",
            SoftwarePort::VhostUser => "vhostUser",
        }
    }
}

/// One address of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IpConfiguration {
    /// The customer address.
    #[serde(rename = "privateIPAddress")]
    pub private_ip_address: String,
    /// The virtual subnet it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Reference>,
    /// ACL, where the interface has none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_control_list: Option<Reference>,
}
