//! What is needed to use the kernel's own address as provider address, on an interface that stays the kernel's.
//!
//! The kernel keeps the interface's ARP and neighbour discovery, its routes and its ICMP; we take the overlay's frames
//! alone, from a packet socket ([`Filter::Overlay`](crate::switch::ports::Filter) without control traffic).
//!
//! * [`Interface`] is what the kernel says of the interface: the MAC that our frames come from, MTU, link, addresses.
//! * [`Neighbours`] has the kernel find the next hops of other hosts, and hears when they change.
//! * [`KernelUplinks`] is all of a host's uplinks together.
//! * [`Guard`] keeps from the kernel what we take: it would answer that nobody listens there.
//!
//! All of it speaks netlink, in the network namespace of the thread that opened it. It needs `CAP_NET_ADMIN` there.

mod guard;
mod interface;
mod neighbour;
mod neighbours;
mod netlink;
mod nftables;
mod route;
mod uplinks;

pub use guard::Guard;
pub use interface::Interface;
pub use neighbours::{Event, Neighbours};
pub use uplinks::KernelUplinks;
