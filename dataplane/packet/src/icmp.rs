//! ICMP (RFC 792), ICMPv6 (RFC 4443) and the two neighbour discovery messages that replace ARP (RFC 4861).

use core::net::{IpAddr, Ipv6Addr};

use crate::bytes::{array, be32};
use crate::checksum::{self, Checksum};
use crate::headers::Family;
use crate::id::MacAddr;
use crate::ip::Protocol;
use crate::reason::Reason;

/// Bytes of the header that all messages share, with the four that each type uses in its own way.
pub const HEADER_LEN: usize = 8;

/// Types of ICMP.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Timestamp request.
    pub const TIMESTAMP: u8 = 13;
    /// Timestamp reply.
    pub const TIMESTAMP_REPLY: u8 = 14;
    /// Code of `UNREACHABLE`: too long, and it must not be fragmented.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
}

/// Types of ICMPv6.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
}

/// Whether messages of a type have an identifier that replies repeat.
pub const fn has_identifier(family: Family, kind: u8) -> bool {
    match family {
        Family::V4 => {
            matches!(kind, v4::ECHO_REPLY | v4::ECHO_REQUEST | v4::TIMESTAMP | v4::TIMESTAMP_REPLY)
        }
        Family::V6 => matches!(kind, v6::ECHO_REQUEST | v6::ECHO_REPLY),
        Family::Arp | Family::Other => false,
    }
}

/// The header of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Four bytes whose meaning depends on the type: identifier and sequence number of an echo, MTU, ...
    pub rest: u32,
}

impl Header {
    /// Header of an echo message.
    pub fn echo(kind: u8, identifier: u16, sequence: u16) -> Self {
        Header { kind, code: 0, rest: u32::from(identifier) << 16 | u32::from(sequence) }
    }

    /// Identifier of an echo message.
    pub const fn identifier(&self) -> u16 {
        (self.rest >> 16) as u16
    }

    /// Sequence number of an echo message.
    pub const fn sequence(&self) -> u16 {
        self.rest as u16
    }

    /// Reads the header of a message of either version; returns it and what follows. The checksum is not verified:
    /// see [`verify`].
    ///
    /// # Errors
    /// `Truncated`.
    pub fn parse(message: &[u8]) -> Result<(Header, &[u8]), Reason> {
        let (header, rest) = message.split_first_chunk::<HEADER_LEN>().ok_or(Reason::Truncated)?;
        Ok((Header { kind: header[0], code: header[1], rest: be32(header, 4) }, rest))
    }

    /// Writes the header to the front of `message`, whose rest is the payload, with the checksum of the version that
    /// the addresses are of; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, src: IpAddr, dst: IpAddr, message: &mut [u8]) -> Result<usize, Reason> {
        let out = message.first_chunk_mut::<HEADER_LEN>().ok_or(Reason::NoBuffer)?;
        out[..4].copy_from_slice(&[self.kind, self.code, 0, 0]);
        out[4..].copy_from_slice(&self.rest.to_be_bytes());
        let sum = !whole(src, dst, message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        Ok(HEADER_LEN)
    }
}

/// Only ICMPv6 has a pseudo-header.
fn whole(src: IpAddr, dst: IpAddr, message: &[u8]) -> u16 {
    if src.is_ipv4() {
        return checksum::sum(message);
    }
    Checksum::new().pseudo_ip(src, dst, Protocol::ICMPV6, message.len() as u32).bytes(message).sum()
}

/// Whether the checksum of a message is right.
pub fn verify(src: IpAddr, dst: IpAddr, message: &[u8]) -> bool {
    whole(src, dst, message) == 0xffff
}

/// A neighbour solicitation or advertisement (RFC 4861 sections 4.3 and 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Solicitation (who has the target?) or advertisement.
    pub solicitation: bool,
    /// Advertisement: router, solicited and override flags, in the upper three bits.
    pub flags: u8,
    /// The address in question.
    pub target: Ipv6Addr,
    /// Link-layer address: the source's in a solicitation, the target's in an advertisement.
    pub mac: Option<MacAddr>,
}

impl Neighbour {
    /// Flag: the sender is a router.
    pub const ROUTER: u8 = 0x80;
    /// Flag: the answer to a solicitation.
    pub const SOLICITED: u8 = 0x40;
    /// Flag: what was known is replaced.
    pub const OVERRIDE: u8 = 0x20;
    /// Bytes of a message with its link-layer address option.
    pub const LEN: usize = 32;

    /// How many options are read.
    const MAX_OPTIONS: usize = 8;

    /// Reads a message. `None`: it is another type. The sender checks that hop limit is 255 and the checksum right.
    ///
    /// # Errors
    /// `Truncated`, or `BadHeaderLength` for an option of length 0.
    pub fn parse(message: &[u8]) -> Result<Option<Neighbour>, Reason> {
        let (header, rest) = Header::parse(message)?;
        let solicitation = match (header.kind, header.code) {
            (v6::NEIGHBOUR_SOLICITATION, 0) => true,
            (v6::NEIGHBOUR_ADVERTISEMENT, 0) => false,
            _ => return Ok(None),
        };
        let (target, mut options) = rest.split_first_chunk::<16>().ok_or(Reason::Truncated)?;
        let mut mac = None;
        for _ in 0..Self::MAX_OPTIONS {
            let &[kind, units, ..] = options else { break };
            let length = usize::from(units) * 8;
            if length == 0 {
                return Err(Reason::BadHeaderLength);
            }
            let (option, after) = options.split_at_checked(length).ok_or(Reason::Truncated)?;
            if kind == Self::option(solicitation) && units == 1 {
                mac = Some(MacAddr(array(option, 2)));
            }
            options = after;
        }
        let flags = (header.rest >> 24) as u8 & 0xe0;
        Ok(Some(Neighbour { solicitation, flags, target: Ipv6Addr::from(*target), mac }))
    }

    const fn option(solicitation: bool) -> u8 {
        if solicitation { 1 } else { 2 }
    }

    /// Writes the message to the front of `out`, with its checksum; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, src: Ipv6Addr, dst: Ipv6Addr, out: &mut [u8]) -> Result<usize, Reason> {
        let length = if self.mac.is_some() { Self::LEN } else { Self::LEN - 8 };
        let out = out.get_mut(..length).ok_or(Reason::NoBuffer)?;
        out[8..24].copy_from_slice(&self.target.octets());
        if let Some(mac) = self.mac {
            out[24..26].copy_from_slice(&[Self::option(self.solicitation), 1]);
            out[26..].copy_from_slice(&mac.0);
        }
        let kind = if self.solicitation { v6::NEIGHBOUR_SOLICITATION } else { v6::NEIGHBOUR_ADVERTISEMENT };
        let header = Header { kind, code: 0, rest: u32::from(self.flags) << 24 };
        header.emit(src.into(), dst.into(), out)?;
        Ok(length)
    }
}
