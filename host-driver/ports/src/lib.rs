//! Ports of a Linux host: what VMs and the provider network attach to the switch by.
//!
//! * [`Tap`]: an interface of the kernel, for a VM, a container or the host itself.
//! * [`VhostUser`]: the virtqueues of a VM's network device, shared with its VMM.
//! * [`AfPacket`]: an existing interface, usually the uplink, beside the kernel.
//! * [`AfXdp`]: the same with XDP sockets: the kernel does not see the overlay's frames.
//! * [`NicQueue`]: a VMQ of a Culvert NIC, which has already done the overlay's work.

#![deny(unsafe_code)]

mod af_packet;
mod filter;
mod nic_queue;
mod outbox;
mod sys;
mod tap;
mod vhost_user;
mod vnet;
mod xdp;

pub use af_packet::{AfPacket, AfPacketOptions};
pub use filter::Filter;
pub use nic_queue::NicQueue;
pub use tap::Tap;
pub use vhost_user::{Discard, VhostUser, VhostUserCounters, VhostUserStatus};
pub use xdp::{AfXdp, AfXdpOptions, AfXdpParts};
