//! The kernel's side of a provider address, on an interface that stays the kernel's.
//!
//! The kernel keeps the interface's ARP and neighbour discovery, its routes and its ICMP. Culvert takes only the overlay's
//! frames, from a packet socket or an XDP socket.
//!
//! * [`Interface`]: what the kernel says of the interface: the source MAC of our frames, MTU, link, addresses.
//! * [`Neighbours`]: has the kernel find the next hops of other hosts, and reports when they change.
//! * [`Guard`]: drops in the kernel what Culvert takes; the kernel would answer that no socket listens there.
//!
//! All of it speaks netlink, in the network namespace of the thread that opened it. It needs `CAP_NET_ADMIN` there.

#![forbid(unsafe_code)]

mod guard;
mod interface;
mod neighbour;
mod neighbours;
mod netlink;
mod nftables;
mod route;

pub use guard::Guard;
pub use interface::Interface;
pub use neighbours::{Event, Neighbours, SILENT_RETRY_MS};
