//! Open vSwitch with DPDK, as Debian packages it, with the same work as Culvert on the same machine.
//!
//! Its userspace datapath runs between two DPDK ports without hardware: `net_null0` hands out buffers, into which our
//! library (`examples/ovs_frames.rs`) writes the same frames that Culvert is measured with; `net_null1` frees the frames that
//! leave. The switch has its own database, sockets and network namespace, in a folder that is removed at the end.

pub mod control;
pub mod daemon;
pub mod frame;
pub mod huge_pages;
pub mod rules;
pub mod session;
pub mod tunnel;
