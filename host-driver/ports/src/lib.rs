//! Ports of a Linux host, by which VMs and the provider network attach to the switch.
//!
//! * [`Tap`]: a TAP interface, for a VM, a container or the host itself.
//! * [`VhostUser`]: the virtqueues of a VM's network device, shared by its VMM.
//! * [`AfPacket`]: an existing interface, usually the uplink, by packet sockets: the kernel gets all frames, too.
//! * [`AfXdp`]: the same by XDP sockets: the kernel does not see the overlay's frames.
//! * [`NicQueue`]: a VMQ of a Culvert NIC, which has already decapsulated the frames.

#![deny(unsafe_code)]

mod af_packet;
mod classic_bpf;
mod filter;
mod filter_rules;
mod interface_state;
mod nic_queue;
mod overlay_sources;
mod packet_tx;
mod sys;
mod tap;
mod tx_offload;
mod vhost_user;
mod vnet_hdr;
mod xdp;

pub use af_packet::{AfPacket, AfPacketOptions};
pub use filter::Filter;
pub use nic_queue::NicQueue;
pub use overlay_sources::OverlaySources;
pub use tap::Tap;
pub use vhost_user::{VhostUser, VhostUserCounters, VhostUserDrop, VhostUserStatus};
pub use xdp::{AfXdp, AfXdpOptions, AfXdpParts};
