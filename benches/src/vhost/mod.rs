//! Guests in this process on vhost-user ports of Culvert's software switch and of Open vSwitch with DPDK.
//!
//! * [`guest`]: a guest, its memory and its [`ring`]s, with a poll-mode driver.
//! * [`client`]: one thread that runs the guests of a case and counts.
//! * [`culvert`]: the software switch with its thread, its slow path and a policy; [`wire`] is its uplink.
//! * [`ovs`]: Open vSwitch with ports of the same kind.
//! * [`interleave`]: both, measured one after the other.

pub mod client;
pub mod culvert;
pub mod guest;
pub mod interleave;
pub mod ovs;
pub mod ring;
pub mod traffic;
pub mod wire;
