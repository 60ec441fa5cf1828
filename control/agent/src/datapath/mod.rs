//! The packet path of a host.
//!
//! * [`Datapath`] is all that the daemon asks of it; tests put their own in its place.
//! * [`HostDatapath`] is the real one: the slow path above one of two backends, a Culvert NIC or the switch (the software
//!   datapath). `open.rs` opens it, `backend.rs` tells the two apart.

mod backend;
mod conditions;
mod errors;
mod flow_reader;
mod flow_view;
mod host;
mod host_watch;
mod interface;
mod last_known;
mod offloads;
mod open;
mod open_error;
mod overlay_sources;
mod switch;
mod trace_frame;
mod trace_length;
mod uplink_lock;
mod uplink_watch;
mod vm_ports;
mod vmq_ports;

pub use conditions::{Conditions, UplinkCondition, VportCondition};
pub use host::HostDatapath;
pub use interface::{Datapath, DatapathError, Measurement};
