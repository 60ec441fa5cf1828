//! Ports of the host: where VMs and the provider network are attached.
//!
//! * [`Tap`]: the kernel's end is an interface, for a VM, a container or the host itself.
//! * [`VhostUser`]: the rings of a VM's network device, without the kernel between.
//! * [`AfPacket`]: an interface that is there, most often the uplink. The kernel keeps using it beside us.
//! * [`AfXdp`]: the same, and what is ours the kernel does not even see.
//! * [`NicQueue`]: a VMQ of a Culvert NIC, which has done the overlay's work by then.

mod af_packet;
mod filter;
mod nic_queue;
mod outbox;
mod stats;
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
