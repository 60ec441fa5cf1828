//! The slow path.
#![forbid(unsafe_code)]

pub mod next_hop;
pub mod target;
pub mod underlay;
pub mod uplink;
