//! What rtnetlink's notifications say may have changed, and must be looked up again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;

use crate::{neighbour_entry, route};

/// What to look up again.
#[derive(Default)]
pub(super) struct Changes {
    /// The interface: its link, MAC, MTU or addresses.
    pub(super) interface: bool,
    /// Every route.
    pub(super) all_routes: bool,
    /// Routes that were added, removed or replaced.
    routes: Vec<RouteMessage>,
    /// Neighbours whose entry has changed.
    pub(super) neighbours: BTreeSet<IpAddr>,
}

impl Changes {
    /// Everything, after a notification was lost.
    pub(super) fn everything() -> Self {
        Changes { interface: true, all_routes: true, ..Changes::default() }
    }

    /// Adds a notification. `index`: the interface.
    pub(super) fn add(&mut self, message: RouteNetlinkMessage, index: u32) {
        match message {
            RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message) => {
                let subject = neighbour_entry::subject(&message).filter(|(interface, _)| *interface == index);
                self.neighbours.extend(subject.map(|(_, addr)| addr));
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                self.routes.push(route);
            }
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
                self.interface |= message.header.index == index;
            }
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
                self.interface |= message.header.index == index;
            }
            // Rules, and next hop objects, which netlink-packet-route does not parse.
            _ => self.all_routes = true,
        }
    }

    /// Whether a changed route may be the one to an address.
    pub(super) fn concern_route_to(&self, addr: IpAddr) -> bool {
        self.routes.iter().any(|route| route::concerns(route, addr))
    }
}
