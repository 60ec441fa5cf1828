//! The outer headers of an encapsulated frame from the wire: VXLAN or NVGRE over IPv4 or IPv6.
//!
//! As in [`parse`](crate::parse()), a fast path takes the common case: no VLAN tag, IPv4 without options. The full parser
//! takes the rest, and finds the reason where a frame is malformed.

use crate::bytes::{array, be16, be32, field};
use crate::checksum::{self, Checksum};
use crate::ethernet::EtherType;
use crate::headers::Family;
use crate::id::{Encap, MacAddr};
use crate::ip::Protocol;
use crate::reason::Reason;
use crate::{nvgre, vxlan};

/// What [`parse_outer`] finds. Offsets count from the first byte of the outer Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// VXLAN or NVGRE.
    pub encap: Encap,
    /// Of the outer IP header: `V4` or `V6`.
    pub family: Family,
    /// Type of service or traffic class of the outer IP header.
    pub tos: u8,
    /// NVGRE: FlowID. VXLAN: 0.
    pub flow_id: u8,
    /// Offset of the outer IP header: 14, or 18 behind a VLAN tag.
    pub l3: u16,
    /// Offset of the UDP or GRE header.
    pub l4: u16,
    /// Offset of the inner Ethernet header.
    pub inner: u16,
    /// Length of the inner frame by the outer headers; the frame may be longer (padding).
    pub inner_len: u16,
    /// VXLAN: UDP checksum, 0 for none. It is not verified here: see [`verify_udp`]. NVGRE: 0.
    pub udp_checksum: u16,
    /// VNI, or upper 24 bits of the GRE key. Not yet checked to be a [`Vsid`](crate::Vsid).
    pub vsid: u32,
    /// Source, in network order; IPv4 in the first four bytes, the others 0.
    pub src: [u8; 16],
    /// Destination, in the same form.
    pub dst: [u8; 16],
}

/// Bytes that the fast path reads: up to the VNI. NVGRE frames are as long, since the inner Ethernet header counts.
const FAST: usize = 50;

/// Parses the outer headers of an encapsulated frame. `None`: it is not encapsulated, so it is control traffic of the PA
/// network (ARP, ICMP, another UDP port, ...). The caller checks the addresses.
///
/// # Errors
/// The frame is malformed: why.
#[inline(always)]
pub fn parse_outer(frame: &[u8]) -> Result<Option<Outer>, Reason> {
    match parse_outer_common(frame) {
        Some(outer) => Ok(Some(outer)),
        None => parse_outer_full(frame),
    }
}

/// The fast path of [`parse_outer`] alone. `None`: the full parser decides on the frame.
#[inline(always)]
pub fn parse_outer_common(frame: &[u8]) -> Option<Outer> {
    let head = frame.first_chunk::<FAST>()?;
    let kind = u32::from_be_bytes(field::<12, 4, FAST>(head));
    let total = u16::from_be_bytes(field::<16, 2, FAST>(head));
    let rest = u32::from_be_bytes(field::<20, 4, FAST>(head));
    // RFC 791 section 3.1: version 4, five words of header, no fragment, a valid header checksum.
    let well = kind & 0xffff_ff00 == 0x0800_4500
        && rest & 0x3fff_0000 == 0
        && usize::from(total) <= frame.len() - 14
        && checksum::header_is_valid(&field::<14, 20, FAST>(head));
    if !well {
        return None;
    }
    let l4 = u32::from_be_bytes(field::<34, 4, FAST>(head));
    let key = u32::from_be_bytes(field::<38, 4, FAST>(head));
    let mut src = [0; 16];
    src[..4].copy_from_slice(&field::<26, 4, FAST>(head));
    let mut dst = [0; 16];
    dst[..4].copy_from_slice(&field::<30, 4, FAST>(head));
    let outer = Outer {
        encap: Encap::Vxlan,
        family: Family::V4,
        tos: kind as u8,
        flow_id: 0,
        l3: 14,
        l4: 34,
        inner: 50,
        inner_len: total.wrapping_sub(36),
        udp_checksum: key as u16,
        vsid: u32::from_be_bytes(field::<46, 4, FAST>(head)) >> 8,
        src,
        dst,
    };
    match Protocol(rest as u8) {
        Protocol::UDP => {
            // RFC 7348 section 5: destination port 4789, and the I flag.
            let whole = (key >> 16) as u16 == total.wrapping_sub(20) && total >= 36;
            let ours = l4 as u16 == vxlan::PORT && head[42] & vxlan::FLAG_I != 0;
            (whole && ours).then_some(outer)
        }
        // RFC 7637 section 3.2: the K flag alone, protocol 0x6558.
        Protocol::GRE => (nvgre::is_nvgre(l4) && total >= 28).then_some(Outer {
            encap: Encap::Nvgre,
            flow_id: key as u8,
            inner: 42,
            inner_len: total.wrapping_sub(28),
            udp_checksum: 0,
            vsid: key >> 8,
            ..outer
        }),
        _ => None,
    }
}

/// Bytes that [`peek_inner`] reads: outer headers without tag and options, and the inner destination MAC.
const PEEK: usize = 56;

/// The VSID and the inner destination MAC of a frame in the common form, for those who only sort frames: lengths and checksums are
/// left to who takes the frame. `None`: [`parse_outer`] decides.
#[inline(always)]
pub fn peek_inner(frame: &[u8]) -> Option<(u32, MacAddr)> {
    let head = frame.first_chunk::<PEEK>()?;
    let kind = u32::from_be_bytes(field::<12, 4, PEEK>(head));
    let rest = u32::from_be_bytes(field::<20, 4, PEEK>(head));
    if kind & 0xffff_ff00 != 0x0800_4500 || rest & 0x3fff_0000 != 0 {
        return None;
    }
    let l4 = u32::from_be_bytes(field::<34, 4, PEEK>(head));
    match Protocol(rest as u8) {
        Protocol::UDP if l4 as u16 == vxlan::PORT && head[42] & vxlan::FLAG_I != 0 => {
            let vni = u32::from_be_bytes(field::<46, 4, PEEK>(head));
            Some((vni >> 8, MacAddr(field::<50, 6, PEEK>(head))))
        }
        Protocol::GRE if nvgre::is_nvgre(l4) => {
            let key = u32::from_be_bytes(field::<38, 4, PEEK>(head));
            Some((key >> 8, MacAddr(field::<42, 6, PEEK>(head))))
        }
        _ => None,
    }
}

/// The fields of an outer IP header.
struct Ip {
    family: Family,
    l3: usize,
    l4: usize,
    end: usize,
    tos: u8,
    protocol: Protocol,
    fragment: bool,
    src: [u8; 16],
    dst: [u8; 16],
}

#[cold]
#[inline(never)]
fn parse_outer_full(frame: &[u8]) -> Result<Option<Outer>, Reason> {
    if frame.len() < 14 {
        return Err(Reason::OuterTruncated);
    }
    let tagged = be16(frame, 12) == EtherType::VLAN.0;
    let l3 = if tagged { 18 } else { 14 };
    let ip = match EtherType(be16(frame, l3 - 2)) {
        EtherType::IPV4 => ipv4(frame, l3)?,
        EtherType::IPV6 => ipv6(frame, l3)?,
        _ => return Ok(None),
    };
    if ip.protocol != Protocol::UDP && ip.protocol != Protocol::GRE {
        return Ok(None);
    }
    // RFC 7348 section 4.3: VTEPs must not fragment, and may discard fragments.
    // RFC 7637 section 4.4: the same by the DF bit. Only the first fragment would have the tunnel's header.
    if ip.fragment {
        return Err(Reason::OuterFragment);
    }
    let payload = frame.get(ip.l4..ip.end).unwrap_or_default();
    let outer = Outer {
        encap: Encap::Vxlan,
        family: ip.family,
        tos: ip.tos,
        flow_id: 0,
        l3: ip.l3 as u16,
        l4: ip.l4 as u16,
        inner: 0,
        inner_len: 0,
        udp_checksum: 0,
        vsid: 0,
        src: ip.src,
        dst: ip.dst,
    };
    if ip.protocol == Protocol::UDP { over_udp(payload, outer) } else { over_gre(payload, outer).map(Some) }
}

fn over_udp(payload: &[u8], outer: Outer) -> Result<Option<Outer>, Reason> {
    let (datagram, rest) = payload.split_at_checked(8).ok_or(Reason::OuterTruncated)?;
    if be16(datagram, 2) != vxlan::PORT {
        return Ok(None);
    }
    let length = usize::from(be16(datagram, 4));
    if length > payload.len() || length < 16 {
        return Err(Reason::OuterTruncated);
    }
    // RFC 7348 section 5: without the I flag the header names no network.
    let (header, _) = vxlan::Header::parse(rest)?;
    Ok(Some(Outer {
        inner: outer.l4 + 16,
        inner_len: (length - 16) as u16,
        udp_checksum: be16(datagram, 6),
        vsid: header.vni.get(),
        ..outer
    }))
}

fn over_gre(payload: &[u8], outer: Outer) -> Result<Outer, Reason> {
    // RFC 7637 section 3.2: VSID and FlowID are the key.
    // RFC 2784 section 2.3: other flags are refused or ignored.
    let (header, inner) = nvgre::Header::parse(payload)?;
    Ok(Outer {
        encap: Encap::Nvgre,
        inner: outer.l4 + nvgre::HEADER_LEN as u16,
        inner_len: inner.len() as u16,
        flow_id: header.flow_id,
        vsid: header.vsid.get(),
        ..outer
    })
}

fn ipv4(frame: &[u8], l3: usize) -> Result<Ip, Reason> {
    let packet = frame.get(l3..).unwrap_or_default();
    let first = packet.first().copied().ok_or(Reason::OuterTruncated)?;
    // RFC 791 section 3.1: at least five words of header, a total length that counts them, a checksum over them.
    let header_len = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header_len < 20 {
        return Err(Reason::OuterBadHeader);
    }
    let header = packet.get(..header_len).ok_or(Reason::OuterTruncated)?;
    if checksum::sum(header) != 0xffff {
        return Err(Reason::OuterIpChecksum);
    }
    let total = usize::from(be16(header, 2));
    if total < header_len {
        return Err(Reason::OuterBadHeader);
    }
    if total > packet.len() {
        return Err(Reason::OuterTruncated);
    }
    let v4 = |at| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&array::<4>(header, at));
        address
    };
    Ok(Ip {
        family: Family::V4,
        l3,
        l4: l3 + header_len,
        end: l3 + total,
        tos: header[1],
        protocol: Protocol(header[9]),
        fragment: be16(header, 6) & 0x3fff != 0,
        src: v4(12),
        dst: v4(16),
    })
}

/// A packet with extension headers counts as not encapsulated: tunnels send none.
fn ipv6(frame: &[u8], l3: usize) -> Result<Ip, Reason> {
    let header = frame.get(l3..l3 + 40).ok_or(Reason::OuterTruncated)?;
    // RFC 8200 section 3: version 6, and a payload length that does not count this header.
    let word = be32(header, 0);
    if word >> 28 != 6 {
        return Err(Reason::OuterBadHeader);
    }
    let end = l3 + 40 + usize::from(be16(header, 4));
    if end > frame.len() {
        return Err(Reason::OuterTruncated);
    }
    Ok(Ip {
        family: Family::V6,
        l3,
        l4: l3 + 40,
        end,
        tos: (word >> 20) as u8,
        protocol: Protocol(header[6]),
        fragment: false,
        src: array(header, 8),
        dst: array(header, 24),
    })
}

/// Whether the outer UDP checksum of a frame is right or absent. `outer` must be the frame's, from [`parse_outer`]. NVGRE
/// has no such checksum: true.
pub fn verify_udp(frame: &[u8], outer: &Outer) -> bool {
    // RFC 7348 section 5: checksum 0 is accepted; any other that is verified must be right.
    // RFC 6935 section 5: 0 is also accepted over IPv6.
    if outer.encap != Encap::Vxlan || outer.udp_checksum == 0 {
        return true;
    }
    let length = outer.inner - outer.l4 + outer.inner_len;
    let l4 = usize::from(outer.l4);
    let Some(datagram) = frame.get(l4..l4 + usize::from(length)) else { return false };
    let mut sum = Checksum::new();
    let address_len = if outer.family == Family::V4 { 4 } else { 16 };
    sum.pseudo(&outer.src[..address_len], &outer.dst[..address_len], Protocol::UDP, u32::from(length));
    sum.bytes(datagram);
    sum.finish() == 0
}
