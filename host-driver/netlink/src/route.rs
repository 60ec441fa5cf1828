//! Looks up the kernel's routes: next hop to an address, default gateway.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use culvert_packet::{Protocol, vxlan};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::netlink::Netlink;

/// The route to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Route {
    /// Index of the outgoing interface.
    pub(super) interface: u32,
    /// The next hop: the address itself, or a gateway, which may be of the other family.
    pub(super) via: IpAddr,
}

pub(super) fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// Looks up the route of a VXLAN packet from a local address to `remote`. `None`: there is no route, or it stays on the host.
///
/// The request names no interface: with one, Linux makes up a route where it has none (ip_route_output_key_hash).
pub(super) fn lookup(netlink: &mut Netlink, local: IpAddr, remote: IpAddr) -> io::Result<Option<Route>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(remote);
    message.header.destination_prefix_length = bits(remote);
    message.header.source_prefix_length = bits(local);
    message.attributes = vec![
        RouteAttribute::Destination(remote.into()),
        RouteAttribute::Source(local.into()),
        RouteAttribute::IpProto(Protocol::UDP.0),
        RouteAttribute::Dport(vxlan::PORT),
    ];
    let mut found = None;
    let result = netlink.call(RouteNetlinkMessage::GetRoute(message), 0, |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer
            && route.header.kind == RouteType::Unicast
        {
            let interface = route.attributes.iter().find_map(interface);
            let via = route.attributes.iter().find_map(gateway).unwrap_or(remote);
            found = interface.map(|interface| Route { interface, via });
        }
    });
    match result.map_err(|error| (Errno::from_io_error(&error), error)) {
        Ok(()) => Ok(found),
        // No route, a route of type unreachable or prohibit, or a source address that is not local.
        Err((
            Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL | Errno::NETDOWN),
            _,
        )) => Ok(None),
        Err((_, error)) => Err(error),
    }
}

fn interface(attribute: &RouteAttribute) -> Option<u32> {
    match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(addr) => ip(addr),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    }
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

/// Metric and gateway of a default route of the main table, if it uses this interface and has a gateway.
pub(super) fn default_gateway(route: &RouteMessage, index: u32) -> Option<(u32, IpAddr)> {
    let header = &route.header;
    let main = header.table == RouteHeader::RT_TABLE_MAIN && header.kind == RouteType::Unicast;
    if !main || header.destination_prefix_length != 0 {
        return None;
    }
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    let hops = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(&hops[..]),
        _ => None,
    });
    let on_interface = |hop: &&RouteNextHop| hop.interface_index == index;
    let gateway = if route.attributes.iter().find_map(interface) == Some(index) {
        route.attributes.iter().find_map(gateway)
    } else {
        hops.unwrap_or_default()
            .iter()
            .find(on_interface)
            .and_then(|hop| hop.attributes.iter().find_map(gateway))
    };
    gateway.map(|gateway| (metric.unwrap_or(0), gateway))
}

/// The addresses that a route which was added, removed or replaced may lead to. `None`: all of its family, because it is a
/// default route, or a whole table was flushed.
pub(super) fn destination(route: &RouteMessage) -> Option<RangeInclusive<IpAddr>> {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(to) => ip(to),
        _ => None,
    });
    let len = u32::from(route.header.destination_prefix_length);
    match destination? {
        IpAddr::V4(to) => {
            let (to, host) = (to.to_bits(), u32::MAX.checked_shr(len).unwrap_or(0));
            Some(Ipv4Addr::from_bits(to & !host).into()..=Ipv4Addr::from_bits(to | host).into())
        }
        IpAddr::V6(to) => {
            let (to, host) = (to.to_bits(), u128::MAX.checked_shr(len).unwrap_or(0));
            Some(Ipv6Addr::from_bits(to & !host).into()..=Ipv6Addr::from_bits(to | host).into())
        }
    }
}

/// All addresses of a family.
pub(super) fn everywhere(ipv4: bool) -> RangeInclusive<IpAddr> {
    if ipv4 {
        Ipv4Addr::UNSPECIFIED.into()..=Ipv4Addr::BROADCAST.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()..=Ipv6Addr::from_bits(u128::MAX).into()
    }
}
