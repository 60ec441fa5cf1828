//! Decides on a flow's first packet: layers, groups, rules, connection tracking.
//!
//! Pure: [`decide()`] reads a [`Snapshot`] of the policy and the [`Connections`], and returns a decision with its effects. Only
//! the caller applies them, by [`Connections::apply`]; so a trace calls the same function and changes nothing.
//!
//! Layers, in their order. From a vport: port (state, VLAN, source MAC and CA), bridge or router, lists of both vports'
//! sides, connection, mapping. From the wire: peer, source, bridge, lists, connection.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acl;
pub mod connection;
mod decide;
pub mod snapshot;
pub mod trace;

pub use connection::{Connection, ConnectionId, Connections, Effect, Effects, Timeouts};
pub use decide::{Decision, Forward, Input, Packet, allows, decide};
pub use snapshot::{Mapping, Mappings, Snapshot};
pub use trace::{Layer, Step, TraceSink};
