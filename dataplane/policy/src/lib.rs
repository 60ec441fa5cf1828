//! Decides what to do with a flow's first packet: layers, groups, rules, connection tracking.
//!
//! Pure: [`decide`] looks at a [`Snapshot`] of the policy and at the [`Connections`], and says what is to be done; only its
//! caller changes anything, by [`Connections::apply`]. So a trace asks the same function and changes nothing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acl;
pub mod snapshot;

pub use snapshot::{Mapping, Mappings, Snapshot};
