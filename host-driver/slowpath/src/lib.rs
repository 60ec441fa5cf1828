//! The slow path: handles a NIC's upcalls and writes the policy into its tables.
//!
//! One thread ([`SlowPath`]) takes the upcalls. For a packet without a flow record it asks the policy, gives the NIC the
//! records of both directions and then, on the same ring, the packet itself, so that a flow's packets keep their order. The
//! thread also resolves next hops, answers ARP for provider addresses, moves them when an uplink fails, writes policies
//! into the NIC, and ages idle connections.
//!
//! * [`Engine`]: all of that without threads, clocks and devices. Upcalls and times go in,
//!   [`FlowCommand`](culvert_offload::FlowCommand)s come out, in order; every ticket is in exactly one of them.
//! * [`Policy`]: what the engine needs of a policy. [`HostPolicy`] is the real one, with the connection table.
//! * [`NicTables`]: the tables of a policy.
//! * [`ConnectionFile`]: stores connections for the next daemon, on hosts without a NIC.
//! * [`Handle`]: sends commands to the thread and reads the NIC.

#![forbid(unsafe_code)]

mod aging;
mod apply;
mod command;
mod connection_store;
mod counters;
mod engine;
mod error;
mod forward;
mod handle;
mod host_policy;
mod kernel_uplinks;
mod nic_state;
mod nic_tables;
mod policy;
mod problems;
mod published;
mod rule_hits;
mod slow_path;
mod thread;
mod timer;
mod trace;
mod underlay;

pub use aging::{AGING_INTERVAL_MS, SWEEP_INTERVAL_MS};
pub use command::Status;
pub use connection_store::{ConnectionFile, Restored};
pub use counters::Counters;
pub use engine::Engine;
pub use error::{Error, Result};
pub use forward::ForwardOutcome;
pub use handle::Handle;
pub use host_policy::{HostPolicy, Limits};
pub use nic_tables::NicTables;
pub use policy::{DecisionRequest, ExpiredConnection, Policy};
pub use published::Published;
pub use rule_hits::RuleHit;
pub use slow_path::{Settings, SlowPath};
pub use trace::PacketTrace;
pub use underlay::{LocalPa, NextHopId, NextHopState, ServedAddress, TunnelPath};
