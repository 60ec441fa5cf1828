//! What the kernel says of an interface: MAC, MTU, link, addresses and gateways.

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

/// An interface, as it was when the kernel was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its number, which stays when it gets another name.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// The longest IP packet that it takes.
    pub mtu: u32,
    /// Whether it is switched on and has a link (`IFF_UP` and `IFF_LOWER_UP`).
    pub up: bool,
    /// Its addresses, each with the length of its prefix, in order.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// The interface of this name.
    ///
    /// # Errors
    /// There is none, or it has no Ethernet MAC.
    pub fn read(name: &str) -> io::Result<Self> {
        let mut netlink = Netlink::open(None, 0)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        Self::ask(&mut netlink, message).map_err(|error| {
            let missing = Errno::from_io_error(&error) == Some(Errno::NODEV);
            let kind = if missing { io::ErrorKind::NotFound } else { error.kind() };
            io::Error::new(kind, format!("interface {name}: {error}"))
        })
    }

    /// The interface of this number.
    pub(super) fn of(netlink: &mut Netlink, index: u32) -> io::Result<Self> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        Self::ask(netlink, message)
    }

    fn ask(netlink: &mut Netlink, message: LinkMessage) -> io::Result<Self> {
        let mut link = None;
        netlink.call(RouteNetlinkMessage::GetLink(message), 0, |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                link = Some(message);
            }
        })?;
        let mut interface = link.and_then(|link| Self::parse(&link)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "it has no MAC of six bytes: only Ethernet will do")
        })?;
        let index = interface.index;
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        netlink.call(question, NLM_F_DUMP, |answer| {
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
            up: message.header.flags.contains(on),
            addresses: Vec::new(),
        })
    }

    /// Whether it has this address.
    pub fn holds(&self, addr: IpAddr) -> bool {
        self.addresses.iter().any(|(ours, _)| *ours == addr)
    }

    /// The gateway of the default route out of this interface, to destinations of the family of `like`; of the main
    /// table's routes the one that comes first.
    ///
    /// # Errors
    /// The system refuses to say.
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

/// The address of a message. That of the other end is another attribute where a link has two ends.
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
