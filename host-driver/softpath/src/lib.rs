//! The slow path.
#![forbid(unsafe_code)]

pub mod ageing;
pub mod apply;
pub mod decide;
pub mod engine;
pub mod next_hop;
pub mod plan;
pub mod software;
pub mod target;
pub mod underlay;
pub mod uplink;
