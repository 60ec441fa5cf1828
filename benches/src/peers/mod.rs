//! Open vSwitch with DPDK as Debian packs it, doing on the same machine what our software path does.
//!
//! Its userspace data path runs between two DPDK ports without hardware: `net_null0` hands out buffers, into which our
//! own library (`examples/ovs_frames.rs`) writes the frames that our path is measured with; `net_null1` takes what
//! leaves and frees it. Nothing of it is seen outside: the switch has its own database, sockets and network namespace,
//! in a folder that goes with it.

pub mod control;
pub mod daemon;
pub mod frame;
pub mod machine;
pub mod ovs;
pub mod rules;
pub mod service;
pub mod session;
