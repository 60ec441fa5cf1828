//! The kernel's side of a provider address, on an interface that stays the kernel's.
//!
//! The kernel keeps ARP, neighbour discovery, routes and ICMP of the interface. Culvert takes only the overlay's frames, from
//! a packet socket or an XDP socket.
//!
//! * [`Interface`]: MAC (the source MAC of our frames), MTU, link state and addresses of the interface.
//! * [`Neighbours`]: has the kernel resolve the next hops of other hosts, and reports their changes.
//! * [`Guard`]: drops in the kernel what Culvert takes; the kernel would answer it with ICMP errors.
//! * [`TxDrops`]: frames that the kernel dropped because an interface's queue was full.
//!
//! All of it speaks netlink, in the network namespace of the thread that opened it. All but [`Interface`] and [`TxDrops`] need
//! `CAP_NET_ADMIN` there.

#![forbid(unsafe_code)]

mod changes;
mod guard;
mod interface;
mod neighbour_entry;
mod neighbour_event;
mod neighbours;
mod netlink;
mod nftables;
mod route;
mod tx_drops;

pub use guard::{Guard, OverlaySource};
pub use interface::Interface;
pub use neighbour_event::NeighbourEvent;
pub use neighbours::{Neighbours, UNANSWERED_RETRY_MS};
pub use tx_drops::TxDrops;
