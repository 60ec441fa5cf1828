//! Whole frames, for tests and for code that answers packets: headers with right lengths and checksums.
//!
//! Each function writes to the front of a buffer and returns the frame's length; `NoBuffer` if it does not fit. The
//! frames are as long as their packets: nothing is padded to Ethernet's minimum.

use core::net::IpAddr;

use crate::encap::{Fill, Template};
use crate::ethernet::{self, EtherType};
use crate::id::MacAddr;
use crate::ip::Protocol;
use crate::reason::Reason;
use crate::{arp, icmp, ipv4, ipv6, tcp, udp};

/// Addresses of a packet's sender and receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Source MAC.
    pub src_mac: MacAddr,
    /// Destination MAC.
    pub dst_mac: MacAddr,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
}

impl Ends {
    /// The same with sender and receiver exchanged.
    pub fn reversed(&self) -> Ends {
        Ends { src_mac: self.dst_mac, dst_mac: self.src_mac, src: self.dst, dst: self.src }
    }
}

/// An Ethernet frame around a payload.
///
/// # Errors
/// `NoBuffer`.
pub fn ethernet(
    out: &mut [u8],
    dst: MacAddr,
    src: MacAddr,
    ethertype: EtherType,
    payload: &[u8],
) -> Result<usize, Reason> {
    let at = ethernet::Header { dst, src, ethertype }.emit(out)?;
    out.get_mut(at..at + payload.len()).ok_or(Reason::NoBuffer)?.copy_from_slice(payload);
    Ok(at + payload.len())
}

/// An ARP packet in its frame. Requests are broadcast.
///
/// # Errors
/// `NoBuffer`.
pub fn arp(out: &mut [u8], packet: &arp::Packet) -> Result<usize, Reason> {
    let request = packet.operation == arp::Operation::REQUEST;
    let dst = if request { MacAddr::BROADCAST } else { packet.target_mac };
    let mut payload = [0; arp::LEN];
    packet.emit(&mut payload)?;
    ethernet(out, dst, packet.sender_mac, EtherType::ARP, &payload)
}

/// Ethernet and IP headers (TTL 64, no options) for `payload_len` bytes to come; returns their length. `fragment` is
/// IPv4's: offset in units of eight bytes, more to follow.
fn ip(
    out: &mut [u8],
    ends: &Ends,
    protocol: Protocol,
    payload_len: usize,
    fragment: (u16, bool),
) -> Result<usize, Reason> {
    let payload_len = u16::try_from(payload_len).map_err(|_| Reason::TooLong)?;
    let ethertype = if ends.src.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    let at = ethernet::Header { dst: ends.dst_mac, src: ends.src_mac, ethertype }.emit(out)?;
    let header = out.get_mut(at..).ok_or(Reason::NoBuffer)?;
    let len = match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (fragment_offset, more_fragments) = fragment;
            let dont_fragment = fragment == (0, false);
            ipv4::Header {
                tos: 0,
                id: u16::from(!dont_fragment),
                dont_fragment,
                more_fragments,
                fragment_offset,
                ttl: 64,
                protocol,
                src,
                dst,
                payload_len,
            }
            .emit(header)?
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6::Header {
            traffic_class: 0,
            flow_label: 0,
            next_header: protocol,
            // What neighbour discovery demands (RFC 4861 section 7.1).
            hop_limit: if protocol == Protocol::ICMPV6 { 255 } else { 64 },
            src,
            dst,
            payload_len,
        }
        .emit(header)?,
        _ => return Err(Reason::Unsupported),
    };
    Ok(at + len)
}

/// The place of a transport header and its payload, the latter copied in. Returns where it begins and ends.
fn transport(
    out: &mut [u8],
    ends: &Ends,
    protocol: Protocol,
    header_len: usize,
    payload: &[u8],
) -> Result<(usize, usize), Reason> {
    let l4 = ip(out, ends, protocol, header_len + payload.len(), (0, false))?;
    let end = l4 + header_len + payload.len();
    out.get_mut(l4 + header_len..end).ok_or(Reason::NoBuffer)?.copy_from_slice(payload);
    Ok((l4, end))
}

/// An IP packet of any protocol.
///
/// # Errors
/// `NoBuffer`, `TooLong`, or `Unsupported` when the addresses are of different families.
pub fn ip_packet(out: &mut [u8], ends: &Ends, protocol: Protocol, payload: &[u8]) -> Result<usize, Reason> {
    transport(out, ends, protocol, 0, payload).map(|(_, end)| end)
}

/// One fragment of an IPv4 packet: offset in units of eight bytes, and whether more follow.
///
/// # Errors
/// As [`ip_packet`].
pub fn fragment(
    out: &mut [u8],
    ends: &Ends,
    protocol: Protocol,
    offset: u16,
    more: bool,
    payload: &[u8],
) -> Result<usize, Reason> {
    let at = ip(out, ends, protocol, payload.len(), (offset, more))?;
    out.get_mut(at..at + payload.len()).ok_or(Reason::NoBuffer)?.copy_from_slice(payload);
    Ok(at + payload.len())
}

/// A UDP datagram.
///
/// # Errors
/// As [`ip_packet`].
pub fn udp(
    out: &mut [u8],
    ends: &Ends,
    src_port: u16,
    dst_port: u16,
    payload: &[u8],
) -> Result<usize, Reason> {
    let (l4, end) = transport(out, ends, Protocol::UDP, udp::HEADER_LEN, payload)?;
    udp::Header { src_port, dst_port, checksum: 0 }.emit(ends.src, ends.dst, &mut out[l4..end])?;
    Ok(end)
}

/// A TCP segment.
///
/// # Errors
/// As [`ip_packet`].
pub fn tcp(out: &mut [u8], ends: &Ends, header: &tcp::Header, payload: &[u8]) -> Result<usize, Reason> {
    let (l4, end) = transport(out, ends, Protocol::TCP, tcp::HEADER_LEN, payload)?;
    header.emit(ends.src, ends.dst, &mut out[l4..end])?;
    Ok(end)
}

/// An ICMP or ICMPv6 message, by the family of the addresses.
///
/// # Errors
/// As [`ip_packet`].
pub fn icmp(out: &mut [u8], ends: &Ends, header: &icmp::Header, payload: &[u8]) -> Result<usize, Reason> {
    let protocol = if ends.src.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
    let (l4, end) = transport(out, ends, protocol, icmp::HEADER_LEN, payload)?;
    header.emit(ends.src, ends.dst, &mut out[l4..end])?;
    Ok(end)
}

/// An echo request.
///
/// # Errors
/// As [`ip_packet`].
pub fn ping(
    out: &mut [u8],
    ends: &Ends,
    identifier: u16,
    sequence: u16,
    payload: &[u8],
) -> Result<usize, Reason> {
    let kind = if ends.src.is_ipv4() { icmp::v4::ECHO_REQUEST } else { icmp::v6::ECHO_REQUEST };
    icmp(out, ends, &icmp::Header::echo(kind, identifier, sequence), payload)
}

/// An echo reply.
///
/// # Errors
/// As [`ip_packet`].
pub fn pong(
    out: &mut [u8],
    ends: &Ends,
    identifier: u16,
    sequence: u16,
    payload: &[u8],
) -> Result<usize, Reason> {
    let kind = if ends.src.is_ipv4() { icmp::v4::ECHO_REPLY } else { icmp::v6::ECHO_REPLY };
    icmp(out, ends, &icmp::Header::echo(kind, identifier, sequence), payload)
}

/// A neighbour solicitation or advertisement.
///
/// # Errors
/// As [`ip_packet`].
pub fn neighbour(out: &mut [u8], ends: &Ends, message: &icmp::Neighbour) -> Result<usize, Reason> {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (ends.src, ends.dst) else { return Err(Reason::Unsupported) };
    let mut payload = [0; icmp::Neighbour::LEN];
    let len = message.emit(src, dst, &mut payload)?;
    ip_packet(out, ends, Protocol::ICMPV6, &payload[..len])
}

/// Puts an 802.1Q tag into the frame of `len` bytes at the front of `buffer`; returns the new length.
///
/// # Errors
/// `NoBuffer`.
pub fn tag(buffer: &mut [u8], len: usize, tci: u16) -> Result<usize, Reason> {
    let longer = buffer.get_mut(..len + 4).filter(|_| len >= 12).ok_or(Reason::NoBuffer)?;
    longer.copy_within(12..len, 16);
    crate::edit::write_vlan(longer, tci);
    Ok(len + 4)
}

/// An encapsulated frame: outer headers and `inner`.
///
/// # Errors
/// `NoBuffer` or `TooLong`.
pub fn encapsulated(
    out: &mut [u8],
    template: &Template,
    vsid: u32,
    entropy: u16,
    inner: &[u8],
) -> Result<usize, Reason> {
    let ecn = crate::parse(inner).map_or(0, |h| h.ecn());
    let at = template.write(&Fill { inner_len: inner.len(), ecn, entropy, vsid }, out)?;
    out.get_mut(at..at + inner.len()).ok_or(Reason::NoBuffer)?.copy_from_slice(inner);
    Ok(at + inner.len())
}
