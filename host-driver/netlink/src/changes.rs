//! What rtnetlink's notifications say may have changed, and must be looked up again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use netlink_packet_core::NetlinkBuffer;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::interface::Interface;
use crate::{neighbour_entry, route};

/// Changed prefixes that are remembered one by one. Beyond them, all routes of the family count as changed.
const MAX_PREFIXES: usize = 16;

/// What to look up again. Its size has a limit, however many notifications it is made of.
#[derive(Default)]
pub(super) struct Changes {
    /// The interface: its link, MAC, MTU or addresses.
    pub(super) interface: bool,
    /// Every route of IPv4, and of IPv6.
    all: [bool; 2],
    /// Addresses whose route may have changed.
    prefixes: Vec<RangeInclusive<IpAddr>>,
    /// Neighbours whose entry has changed.
    pub(super) neighbours: BTreeSet<IpAddr>,
}

impl Changes {
    /// What a change of an interface may change: the routes of one family, if only addresses of that one have changed.
    pub(super) fn of_interface(old: &Interface, new: &Interface) -> Self {
        let of_family = |interface: &Interface, ipv4| {
            let addresses = interface.addresses.iter().filter(|(addr, _)| addr.is_ipv4() == ipv4);
            addresses.copied().collect::<Vec<_>>()
        };
        let same = |ipv4| of_family(old, ipv4) == of_family(new, ipv4);
        let only_addresses = Interface { addresses: new.addresses.clone(), ..old.clone() } == *new;
        let mut changes = Changes::default();
        changes.add_routes_of(match (only_addresses, same(true), same(false)) {
            (true, true, false) => AddressFamily::Inet6,
            (true, false, true) => AddressFamily::Inet,
            _ => AddressFamily::Unspec,
        });
        changes
    }

    /// Counts everything as changed: a notification was lost.
    pub(super) fn add_everything(&mut self) {
        self.interface = true;
        self.add_routes_of(AddressFamily::Unspec);
    }

    /// Counts all routes of a family as changed; of a family that is neither IPv4 nor IPv6, those of both.
    pub(super) fn add_routes_of(&mut self, family: AddressFamily) {
        match family {
            AddressFamily::Inet => self.all[0] = true,
            AddressFamily::Inet6 => self.all[1] = true,
            _ => self.all = [true; 2],
        }
    }

    /// Adds a notification. `index`: the interface.
    pub(super) fn add(&mut self, message: &RouteNetlinkMessage, index: u32) {
        match message {
            RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message) => {
                let subject = neighbour_entry::subject(message).filter(|(interface, _)| *interface == index);
                self.neighbours.extend(subject.map(|(_, addr)| addr));
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                self.add_route(route);
            }
            RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule) => {
                self.add_routes_of(rule.header.family);
            }
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
                self.interface |= message.header.index == index;
            }
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
                self.interface |= message.header.index == index;
            }
            _ => self.add_routes_of(AddressFamily::Unspec),
        }
    }

    /// Adds a notification that netlink-packet-route does not parse: of a next hop object, or with attributes of a newer kernel.
    pub(super) fn add_unknown(&mut self, message: &[u8]) {
        let family = NetlinkBuffer::new_checked(message).ok().and_then(|message| {
            let of_routes = matches!(
                message.message_type(),
                libc::RTM_NEWROUTE | libc::RTM_DELROUTE | libc::RTM_NEWRULE | libc::RTM_DELRULE
            );
            message.payload().first().filter(|_| of_routes).copied()
        });
        match family {
            Some(family) => self.add_routes_of(family.into()),
            None => self.add_everything(),
        }
    }

    fn add_route(&mut self, route: &RouteMessage) {
        let family = route.header.address_family;
        match route::destination(route) {
            Some(prefix) if self.prefixes.len() < MAX_PREFIXES => self.prefixes.push(prefix),
            _ => self.add_routes_of(family),
        }
    }

    /// Addresses whose route may have changed.
    pub(super) fn routes(&self) -> impl Iterator<Item = RangeInclusive<IpAddr>> + '_ {
        let families = [route::everywhere(true), route::everywhere(false)];
        let whole = families.into_iter().zip(self.all).filter(|(_, all)| *all).map(|(range, _)| range);
        let single = self.prefixes.iter().filter(|range| !self.all[usize::from(range.start().is_ipv6())]);
        whole.chain(single.cloned())
    }
}
