//! A policy document, validated, and one host's configuration of it. Pure: no input, no output, no clock.
//!
//! 1. [`Fabric::check`] turns a [`culvert_api::Bundle`] into a [`Fabric`]: a graph whose references hold and whose
//!    addresses, VSIDs and MACs fit together. It reports the [`Problems`] of the policy, not only the first.
//! 2. [`host_config`] derives what one host must know of it, as `culvert_policy`'s snapshot. Numbers that outlive a policy change (vports, tunnels,
//!    peers, generations) come from [`Indices`], which the caller persists.

#![forbid(unsafe_code)]

mod acl;
mod check;
mod fabric;
mod host;
mod indices;
mod names;
mod problem;

pub use fabric::{
    Acl, AclEntry, Checked, Fabric, Host, HostUplink, Interface, Network, PortRange, ProviderSubnet,
    Settings, Subnet,
};
pub use host::{HostConfig, LocalVport, Site, SnapshotError, host_config};
pub use indices::Indices;
pub use problem::{Kind, Problem, Problems};
