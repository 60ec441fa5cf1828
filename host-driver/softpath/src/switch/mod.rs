//! The software path's NIC: the match-action core on threads of the host, between ports of the host.
//!
//! To the slow path it is a NIC like any other ([`OffloadTarget`](crate::OffloadTarget)): misses come up as exceptions,
//! records and packets go down as steps. So policy, connections, next hops, order while a flow is decided and moving
//! uplinks are the same code whether a VM sits on a VF or on a TAP.
//!
//! * [`Pool`] and [`Packet`]: memory for packets, never allocated while packets run.
//! * [`SwitchPort`]: where packets come from and go to; [`ports`] has those of the host.
//! * [`Forwarder`]: what becomes of packets between ports, without thread and clock.
//! * [`Team`]: several of them, which pass packets to each other.
//! * [`Switch`]: all of it together, with a thread for each.
//! * [`Relay`]: on a host with a Culvert NIC, the same ports for machines that no VF serves.

mod bell;
mod burst;
mod crossing;
mod events;
mod exceptions;
mod forwarder;
mod handle;
mod homes;
pub mod memory;
mod packet;
mod passing;
mod places;
mod port;
pub mod ports;
mod punt;
mod relay;
mod replicate;
pub mod segment;
mod settings;
mod slot;
mod steps;
mod tables;
mod target;
mod team;
mod worker;

pub use burst::BURST;
pub use forwarder::Forwarder;
pub use handle::{Load, Switch};
pub use packet::{BUFFER, HEADROOM, LARGE_BUFFER, Packet, Pool};
pub use port::{Sent, SwitchPort};
pub use relay::Relay;
pub use settings::SwitchSettings;
pub use slot::Opener;
pub use team::Team;
