//! Reads an interface from the kernel: MAC, MTU, link state, addresses and default gateway.

use std::io;
use std::net::IpAddr;

use culvert_packet::MacAddr;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use rustix::io::Errno;

use crate::netlink::Netlink;
use crate::route;

/// An interface, as it was when it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index, which stays when it is renamed.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// Length of the longest IP packet.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`).
    pub enabled: bool,
    /// Whether it is up and has a link (`IFF_UP` and `IFF_LOWER_UP`).
    pub up: bool,
    /// Its addresses, each with its prefix length, sorted.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// Reads the interface of this name.
    ///
    /// # Errors
    /// There is none, or it has no Ethernet MAC.
    pub fn read(name: &str) -> io::Result<Self> {
        let mut netlink = Netlink::open(None, 0)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        Self::get(&mut netlink, message).map_err(|error| {
            let missing = Errno::from_io_error(&error) == Some(Errno::NODEV);
            let kind = if missing { io::ErrorKind::NotFound } else { error.kind() };
            io::Error::new(kind, format!("interface {name}: {error}"))
        })
    }

    /// The name that the interface of this index has now.
    ///
    /// # Errors
    /// There is none in this network namespace.
    pub fn name_of(index: u32) -> io::Result<String> {
        Ok(Self::by_index(&mut Netlink::open(None, 0)?, index)?.name)
    }

    /// Reads the interface of this index.
    pub(super) fn by_index(netlink: &mut Netlink, index: u32) -> io::Result<Self> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        Self::get(netlink, message)
    }

    fn get(netlink: &mut Netlink, message: LinkMessage) -> io::Result<Self> {
        let mut link = None;
        netlink.call(RouteNetlinkMessage::GetLink(message), 0, |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                link = Some(message);
            }
        })?;
        let mut interface = link.and_then(|link| Self::parse(&link)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "no MAC of six bytes: not an Ethernet interface")
        })?;
        let index = interface.index;
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        netlink.call(request, NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewAddress(message) = answer
                && message.header.index == index
            {
                interface.addresses.extend(address(&message).map(|addr| (addr, message.header.prefix_len)));
            }
        })?;
        interface.addresses.sort();
        Ok(interface)
    }

    fn parse(message: &LinkMessage) -> Option<Self> {
        let (mut name, mut mac, mut mtu) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(&bytes[..]).ok(),
                LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
                _ => {}
            }
        }
        let on = LinkFlags::Up | LinkFlags::LowerUp;
        Some(Interface {
            index: message.header.index,
            name: name?,
            mac: MacAddr(mac?),
            mtu: mtu?,
            enabled: message.header.flags.contains(LinkFlags::Up),
            up: message.header.flags.contains(on),
            addresses: Vec::new(),
        })
    }

    /// Whether it has this address.
    pub fn holds(&self, addr: IpAddr) -> bool {
        self.addresses.iter().any(|(own, _)| *own == addr)
    }

    /// The gateway of the main table's default route out of this interface, of the address family of `like`. Of several
    /// routes it is the one with the lowest metric.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn gateway(&self, like: IpAddr) -> io::Result<Option<IpAddr>> {
        let mut netlink = Netlink::open(None, 0)?;
        let mut message = RouteMessage::default();
        message.header.address_family = route::family(like);
        let mut best: Option<(u32, IpAddr)> = None;
        netlink.call(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer
                && let Some(found) = route::default_gateway(&route, self.index)
                && best.is_none_or(|best| found.0 < best.0)
            {
                best = Some(found);
            }
        })?;
        Ok(best.map(|(_, gateway)| gateway))
    }
}

/// The local address of a message. On a point-to-point link `Address` is the other end's, and `Local` is ours.
pub(super) fn address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(addr) => Some(*addr),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(addr) => Some(*addr),
            _ => None,
        })
    })
}
