//! The slow path: everything about packets that a NIC or the switch does not do by itself.
//!
//! One thread ([`SlowPath`]) takes a NIC's upcalls. For each packet without a flow record it asks the policy, gives the NIC
//! the records of both directions and then, in the same ring, the packet itself, so that a flow's packets keep their
//! order. It also resolves next hops, answers for provider addresses, moves them when an uplink fails, writes policies
//! into the NIC, and ages idle connections.
//!
//! * [`Engine`]: all of that without threads, clocks and devices: upcalls and times go in,
//!   [`FlowCommand`](culvert_offload::FlowCommand)s come out, in order. Every ticket of an upcall is in exactly one of them.
//! * [`Policy`]: what the engine asks of the policy.
//! * [`ConnectionFile`]: stores connections for the next daemon, on hosts without a NIC.
//! * [`Handle`]: how other threads ask the slow path and command it.

#![deny(unsafe_code)]

mod aging;
mod apply;
mod connection_store;
pub mod decide;
mod engine;
mod error;
pub mod forward;
mod handle;
mod kernel_uplinks;
pub mod next_hop;
pub mod plan;
pub mod policy;
mod provider;
mod resolver;
mod thread;
mod trace;
pub mod underlay;
pub mod uplink;

pub use aging::{AGING_INTERVAL_MS, SWEEP_INTERVAL_MS};
pub use connection_store::{ConnectionFile, Restored};
pub use decide::Policy;
pub use engine::{Address, Engine, Tally};
pub use error::{Error, Result};
pub use handle::{Handle, Settings, SlowPath, Status};
pub use plan::Plan;
pub use policy::{HostPolicy, Limits, Traced};
