//! An entry of the kernel's neighbour table: read, and used as a packet would.

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

/// How far the kernel is with a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// It does not know the neighbour, and does not ask for it.
    Unknown,
    /// It is asking.
    Asking,
    /// It has this MAC, and sees to it that it is right.
    Known(MacAddr),
    /// It has this MAC, which it will not ask about before something uses it.
    Stale(MacAddr),
    /// It has asked, and got no answer.
    Failed,
}

/// The entry of a neighbour on an interface.
pub(super) fn look(netlink: &mut Netlink, interface: u32, addr: IpAddr) -> io::Result<Entry> {
    let mut found = Entry::Unknown;
    let asked = netlink.call(RouteNetlinkMessage::GetNeighbour(message(interface, addr)), 0, |answer| {
        if let RouteNetlinkMessage::NewNeighbour(message) = answer {
            found = parse(&message);
        }
    });
    match asked {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(Entry::Unknown),
        other => other.map(|()| found),
    }
}

/// Uses the entry as a packet would (`NTF_USE`), which has the kernel ask for an unknown or failed neighbour, and ask a
/// stale one whether it is still there. The entry stays the kernel's, which forgets it when nobody uses it any more.
pub(super) fn touch(netlink: &mut Netlink, interface: u32, addr: IpAddr) -> io::Result<()> {
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

fn parse(message: &NeighbourMessage) -> Entry {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddr),
        _ => None,
    });
    let mac = mac.filter(|mac| mac.is_unicast());
    match (message.header.state, mac) {
        (NeighbourState::Failed, _) => Entry::Failed,
        (NeighbourState::Incomplete, _) => Entry::Asking,
        (NeighbourState::Stale, Some(mac)) => Entry::Stale(mac),
        (
            NeighbourState::Reachable
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent,
            Some(mac),
        ) => Entry::Known(mac),
        _ => Entry::Unknown,
    }
}

/// Whom a notification is about.
pub(super) fn subject(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let addr = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some((*addr).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    });
    Some((message.header.ifindex, addr?))
}
