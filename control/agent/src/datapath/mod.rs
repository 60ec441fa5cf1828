//! The packet path of a host.
//!
//! * [`Datapath`] is all that the daemon asks of it; tests put their own in its place.
//! * [`HostDatapath`] is the real one: the slow path above one of two backends, a Culvert NIC or the switch (the software
//!   datapath). `open.rs` opens it, `backend.rs` tells the two apart.

mod backend;
mod errors;
mod flow_reader;
mod flow_view;
mod host;
mod interface;
mod last_known;
mod offloads;
mod open;
mod overlay_sources;
mod switch;
mod trace_frame;
mod vm_ports;
mod vmq_ports;

pub use host::HostDatapath;
pub use interface::{Datapath, DatapathError, Measurement};
