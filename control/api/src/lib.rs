//! The northbound API's types, shared by `culvertd` and `culvert`.
//!
//! Two families:
//!
//! * **Resources** in the shape of MS-NCNBI: an envelope ([`Resource`]) around the properties of one collection
//!   ([`Collection`]). A [`Bundle`] is a whole policy: every collection with its resources. What clients send is
//!   read in their notation ([`lenient`]): property names in any case, numbers and booleans as strings, MAC addresses in
//!   any usual notation, one element in place of a list. What is not known is refused, or left out and listed. Output is
//!   canonical. The tables for this are the
//!   OpenAPI schemas of the very same types ([`Shape`]), so there is one definition of every property.
//! * **Views** ([`view`]): the state of the running host, as the daemon reports it and the CLI prints it.
//!
//! This crate does not check policies: addresses, prefixes and references are text until `culvert-model` checks them.

#![forbid(unsafe_code)]

mod access_control_list;
mod any_resource;
mod bundle;
mod collection;
mod error;
mod findings;
mod forms;
pub mod lenient;
mod logical_network;
mod names;
mod network_interface;
mod network_manager;
mod reference;
mod resource;
mod server;
mod shape;
mod text;
mod tree;
pub mod view;
mod virtual_network;

pub use access_control_list::{AccessControlList, AclRule, Direction, RuleAction};
pub use any_resource::AnyResource;
pub use bundle::{ApplyMode, ApplyReply, Bundle, Parsed};
pub use collection::{Collection, ResourcePath};
pub use error::{Error, ErrorBody, ErrorReply, LONGEST_ERROR, MAX_LISTED, Warning, json_error};
pub use findings::Findings;
pub use forms::{read_child, read_resource};
pub use lenient::Unknown;
pub use logical_network::{IpPool, LogicalNetwork, LogicalSubnet};
pub use names::nearest;
pub use network_interface::{IpConfiguration, NetworkInterface, Offload, SoftwarePort};
pub use network_manager::{DistributedRouterState, NetworkManager, Protocol, VsidRange};
pub use reference::Reference;
pub use resource::{ConfigurationState, Properties, ProvisioningState, Resource};
pub use server::{Server, Uplink};
pub use shape::Shape;
pub use text::JsonText;
pub use tree::{Node, Spec};
pub use virtual_network::{AddressSpace, VirtualNetwork, VirtualSubnet};

#[cfg(test)]
mod tests;
