//! Ports on real interfaces and guest rings: the kernel, or a driver, at the other end says whether they are right.
//!
//! Every test makes its own network namespaces. Without root it needs user namespaces and access to /dev/net/tun.

mod af_packet;
mod filter;
mod frames;
#[path = "../../../../dataplane/virtio/tests/files/fuse.rs"]
mod fuse;
mod link_faults;
mod namespace;
mod port_bridge;
mod receive_checks;
mod streams;
mod test_port;
mod vhost_budget;
mod vhost_bursts;
mod vhost_dpdk;
mod vhost_files;
mod vhost_frames;
mod vhost_guest;
mod vhost_hostile;
mod vhost_reconnect;
mod vhost_streams;
mod vhost_vm;
mod worker;
mod xdp_filter;
mod xdp_frames;
mod xdp_kernel_traffic;
mod xdp_link_faults;
