//! Ports of the software NIC on real interfaces: the kernel on the other side says whether what they do is right.
//!
//! Every test makes its own network namespaces. An ordinary user needs user namespaces and /dev/net/tun for that.

mod fault_injection;
mod filter;
mod lan_host;
mod namespace;
mod port_bridge;
mod streams;
mod vhost_again;
mod vhost_bursts;
mod vhost_dpdk;
mod vhost_frames;
mod vhost_guest;
mod vhost_hostile;
mod vhost_streams;
mod wire;
mod xdp_beside;
mod xdp_fault_injection;
mod xdp_filter;
mod xdp_frames;
