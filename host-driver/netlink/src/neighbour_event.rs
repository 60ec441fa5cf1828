//! [`NeighbourEvent`]: what changes about next hops.

use std::net::IpAddr;

use culvert_packet::MacAddr;

use crate::interface::Interface;

/// A change of a host's next hop or of the interface. Each one replaces the previous event about the same host, or about
/// the interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NeighbourEvent {
    /// Frames for a host go to this MAC.
    Resolved {
        /// The host.
        remote: IpAddr,
        /// The neighbour: the host itself, or a gateway.
        via: IpAddr,
        /// The neighbour's MAC.
        mac: MacAddr,
    },
    /// The next hop of a host does not answer ARP or neighbour discovery. It is solicited again after
    /// [`UNANSWERED_RETRY_MS`](crate::UNANSWERED_RETRY_MS).
    Unanswered {
        /// The host.
        remote: IpAddr,
        /// The neighbour: the host itself, or a gateway.
        via: IpAddr,
    },
    /// The kernel has no route to a host from the local address, or its route uses another interface.
    NoRoute {
        /// The host.
        remote: IpAddr,
    },
    /// The interface's link, MAC, MTU or addresses have changed.
    InterfaceChanged(Interface),
    /// The interface was removed. A later one with the same name is another interface.
    InterfaceRemoved,
}
