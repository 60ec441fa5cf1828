//! Reads an entry of the kernel's neighbour table, and has the kernel solicit a neighbour.

use std::io;
use std::net::IpAddr;

use culvert_packet::MacAddr;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rustix::io::Errno;

use crate::netlink::Netlink;
use crate::route;

/// State of an entry (`NUD_...` of linux/neighbour.h, as far as it matters here).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NeighbourEntry {
    /// No entry, or one without a usable MAC.
    None,
    /// The kernel is soliciting the neighbour.
    Incomplete,
    /// Reachable at this MAC, or permanent.
    Valid(MacAddr),
    /// Has this MAC, which the kernel confirms only when something uses the entry.
    Stale(MacAddr),
    /// The neighbour has not answered.
    Failed,
}

/// Gets the entry of a neighbour on an interface.
pub(super) fn get(netlink: &mut Netlink, interface: u32, addr: IpAddr) -> io::Result<NeighbourEntry> {
    let mut found = NeighbourEntry::None;
    let result = netlink.call(RouteNetlinkMessage::GetNeighbour(message(interface, addr)), 0, |answer| {
        if let RouteNetlinkMessage::NewNeighbour(message) = answer {
            found = parse(&message);
        }
    });
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(NeighbourEntry::None),
        other => other.map(|()| found),
    }
}

/// Uses the entry as a packet would (`NTF_USE`): the kernel solicits a neighbour that is missing or failed, and probes a
/// stale one. The kernel still owns the entry, and removes it when it is no longer used.
pub(super) fn solicit(netlink: &mut Netlink, interface: u32, addr: IpAddr) -> io::Result<()> {
    let mut message = message(interface, addr);
    message.header.flags = NeighbourFlags::Use;
    netlink.call(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE, drop)
}

fn message(interface: u32, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = route::family(addr);
    message.header.ifindex = interface;
    message.attributes.push(NeighbourAttribute::Destination(addr.into()));
    message
}

fn parse(message: &NeighbourMessage) -> NeighbourEntry {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddr),
        _ => None,
    });
    let mac = mac.filter(|mac| mac.is_unicast());
    match (message.header.state, mac) {
        (NeighbourState::Failed, _) => NeighbourEntry::Failed,
        (NeighbourState::Incomplete, _) => NeighbourEntry::Incomplete,
        (NeighbourState::Stale, Some(mac)) => NeighbourEntry::Stale(mac),
        (
            NeighbourState::Reachable
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent,
            Some(mac),
        ) => NeighbourEntry::Valid(mac),
        _ => NeighbourEntry::None,
    }
}

/// Interface and address of the neighbour that a notification is about.
pub(super) fn subject(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let addr = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some((*addr).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    });
    Some((message.header.ifindex, addr?))
}
