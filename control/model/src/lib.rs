//! A policy document, validated, and one host's part of it. Pure: no input, no output, no clock.
//!
//! 1. [`Fabric::check`] turns a [`culvert_api::Bundle`] into a [`Fabric`]: a graph whose references hold and whose
//!    addresses, VSIDs and MACs fit together. It reports every [`Problem`] of the policy, not only the first.

#![forbid(unsafe_code)]

mod check;
mod fabric;
mod names;
mod problem;

pub use fabric::{
    Acl, AclEntry, Checked, Fabric, Host, HostUplink, Interface, Network, PortRange, ProviderSubnet,
    Settings, Subnet,
};
pub use problem::{Kind, Problem};
