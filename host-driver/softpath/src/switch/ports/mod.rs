//! Ports of the host: where VMs and the provider network are attached.
//!
//! * [`Tap`]: the kernel's end is an interface, for a VM, a container or the host itself.
//! * [`AfPacket`]: an interface that is there, most often the uplink. The kernel keeps using it beside us.

mod af_packet;
mod filter;
mod outbox;
mod stats;
mod sys;
mod tap;
mod vnet;

pub use af_packet::{AfPacket, AfPacketOptions};
pub use filter::Filter;
pub use tap::Tap;
