//! Edits headers in place and updates checksums incrementally (RFC 1624).
//!
//! A frame is edited under the [`Headers`] that [`parse`](crate::parse()) found in it. Bytes outside the
//! frame are not written: a frame that does not match its headers is edited wrongly, but nothing panics.

use crate::bytes::{array, be16, put};
use crate::checksum;
use crate::headers::{Family, Fragment, Headers};
use crate::id::MacAddr;
use crate::ip::Protocol;
use crate::udp;

/// What the checksum field of a transport header holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transport {
    /// The checksum.
    #[default]
    Complete,
    /// The sum of the pseudo-header: hardware is to add the rest (virtio's `NEEDS_CSUM`).
    Partial,
}

/// Sets the destination MAC.
#[inline(always)]
pub fn set_dst_mac(frame: &mut [u8], mac: MacAddr) {
    put(frame, 0, mac.0);
}

/// Sets the source MAC.
#[inline(always)]
pub fn set_src_mac(frame: &mut [u8], mac: MacAddr) {
    put(frame, 6, mac.0);
}

/// Decrements TTL or hop limit, unless it is 0. Frames that are not IP stay unchanged.
#[inline(always)]
pub fn decrement_ttl(frame: &mut [u8], headers: &Headers) {
    let Some(header) = frame.get_mut(usize::from(headers.l3)..).and_then(|l3| l3.first_chunk_mut::<12>())
    else {
        return;
    };
    match headers.family {
        Family::V4 => {
            // The word of TTL and protocol.
            let old = u16::from_be_bytes([header[8], header[9]]);
            header[8] = header[8].saturating_sub(1);
            let new = u16::from_be_bytes([header[8], header[9]]);
            let sum = checksum::update(u16::from_be_bytes([header[10], header[11]]), old, new);
            header[10..].copy_from_slice(&sum.to_be_bytes());
        }
        Family::V6 => header[7] = header[7].saturating_sub(1),
        Family::Arp | Family::Other => {}
    }
}

#[inline(always)]
fn update_at(frame: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) {
    let new = change(be16(frame, at));
    put(frame, at, new.to_be_bytes());
}

/// Offset of the transport checksum of a packet, if it has one that covers its ports or addresses.
fn transport_checksum(headers: &Headers) -> Option<usize> {
    if headers.l4 == 0 || headers.fragment == Fragment::Later {
        return None;
    }
    let offset = match Protocol(headers.protocol) {
        Protocol::TCP => 16,
        Protocol::UDP => 6,
        Protocol::ICMPV6 | Protocol::ICMP => 2,
        _ => return None,
    };
    Some(usize::from(headers.l4) + offset)
}

/// Updates a transport checksum. UDP's 0 (none) stays, and no other value becomes 0.
fn update_transport(frame: &mut [u8], headers: &Headers, state: Transport, change: impl FnOnce(u16) -> u16) {
    let Some(at) = transport_checksum(headers) else { return };
    let is_udp = Protocol(headers.protocol) == Protocol::UDP;
    update_at(frame, at, |field| match state {
        Transport::Complete if is_udp && field == 0 => 0,
        Transport::Complete if is_udp => udp::not_zero(change(field)),
        Transport::Complete => change(field),
        // The field is a sum and not its complement.
        Transport::Partial => !change(!field),
    });
}

fn set_addr(frame: &mut [u8], headers: &Headers, address: &[u8], state: Transport, source: bool) {
    let l3 = usize::from(headers.l3);
    match headers.family {
        Family::V4 => {
            let at = l3 + if source { 12 } else { 16 };
            let old: [u8; 4] = array(frame, at);
            let new: [u8; 4] = array(address, 0);
            let change = |sum| checksum::update_u32(sum, u32::from_be_bytes(old), u32::from_be_bytes(new));
            put(frame, at, new);
            update_at(frame, l3 + 10, change);
            // ICMP over IPv4 has no pseudo-header.
            if Protocol(headers.protocol) != Protocol::ICMP {
                update_transport(frame, headers, state, change);
            }
        }
        Family::V6 => {
            let at = l3 + if source { 8 } else { 24 };
            let old: [u8; 16] = array(frame, at);
            let new: [u8; 16] = array(address, 0);
            put(frame, at, new);
            update_transport(frame, headers, state, |sum| checksum::update_bytes(sum, &old, &new));
        }
        Family::Arp | Family::Other => {}
    }
}

/// Sets the source address: 4 or 16 bytes in network order (for IPv4 the first four count).
#[inline]
pub fn set_src_addr(frame: &mut [u8], headers: &Headers, address: &[u8]) {
    set_addr(frame, headers, address, Transport::Complete, true);
}

/// Sets the destination address: 4 or 16 bytes in network order (for IPv4 the first four count).
#[inline]
pub fn set_dst_addr(frame: &mut [u8], headers: &Headers, address: &[u8]) {
    set_addr(frame, headers, address, Transport::Complete, false);
}

/// Sets the source address of a packet whose transport checksum is `state`.
pub fn set_src_addr_with(frame: &mut [u8], headers: &Headers, address: &[u8], state: Transport) {
    set_addr(frame, headers, address, state, true);
}

/// Sets the destination address of a packet whose transport checksum is `state`.
pub fn set_dst_addr_with(frame: &mut [u8], headers: &Headers, address: &[u8], state: Transport) {
    set_addr(frame, headers, address, state, false);
}

fn set_l4_word(frame: &mut [u8], headers: &Headers, offset: usize, new: u16, state: Transport) {
    if headers.l4 == 0 {
        return;
    }
    let at = usize::from(headers.l4) + offset;
    let old = be16(frame, at);
    put(frame, at, new.to_be_bytes());
    // A partial checksum covers only the pseudo-header so far.
    if state == Transport::Complete {
        update_transport(frame, headers, state, |sum| checksum::update(sum, old, new));
    }
}

fn has_ports(headers: &Headers) -> bool {
    matches!(Protocol(headers.protocol), Protocol::TCP | Protocol::UDP)
}

/// Sets the source port of TCP or UDP.
#[inline]
pub fn set_src_port(frame: &mut [u8], headers: &Headers, port: u16) {
    set_src_port_with(frame, headers, port, Transport::Complete);
}

/// Sets the destination port of TCP or UDP.
#[inline]
pub fn set_dst_port(frame: &mut [u8], headers: &Headers, port: u16) {
    set_dst_port_with(frame, headers, port, Transport::Complete);
}

/// Sets the source port of a packet whose transport checksum is `state`.
pub fn set_src_port_with(frame: &mut [u8], headers: &Headers, port: u16, state: Transport) {
    if has_ports(headers) {
        set_l4_word(frame, headers, 0, port, state);
    }
}

/// Sets the destination port of a packet whose transport checksum is `state`.
pub fn set_dst_port_with(frame: &mut [u8], headers: &Headers, port: u16, state: Transport) {
    if has_ports(headers) {
        set_l4_word(frame, headers, 2, port, state);
    }
}

/// Sets the identifier of an ICMP message that has one.
pub fn set_icmp_identifier(frame: &mut [u8], headers: &Headers, identifier: u16) {
    let icmp = matches!(
        (headers.family, Protocol(headers.protocol)),
        (Family::V4, Protocol::ICMP) | (Family::V6, Protocol::ICMPV6)
    );
    if icmp && crate::icmp::has_identifier(headers.family, headers.l4_src as u8) {
        set_l4_word(frame, headers, 4, identifier, Transport::Complete);
    }
}

/// Writes a VLAN tag over the four bytes behind the MACs, which were made free for it.
#[inline(always)]
pub fn write_vlan(frame: &mut [u8], tci: u16) {
    put(frame, 12, 0x8100u16.to_be_bytes());
    put(frame, 14, tci.to_be_bytes());
}

/// Adds a VLAN tag to the frame that begins at `start` of `buffer`, using four bytes in front of it. Returns where the
/// frame begins now; `None`, and nothing is changed, if there is no room.
pub fn push_vlan(buffer: &mut [u8], start: usize, tci: u16) -> Option<usize> {
    let new = start.checked_sub(4)?;
    if start.checked_add(12)? > buffer.len() {
        return None;
    }
    buffer.copy_within(start..start + 12, new);
    write_vlan(&mut buffer[new..], tci);
    Some(new)
}

/// Takes the VLAN tag out of the frame that begins at `start` of `buffer`. Returns where the frame begins now; `None`, and
/// nothing is changed, if it has no tag.
pub fn pop_vlan(buffer: &mut [u8], start: usize) -> Option<usize> {
    let end = start.checked_add(16).filter(|&end| end <= buffer.len())?;
    if be16(buffer, start + 12) != 0x8100 {
        return None;
    }
    buffer.copy_within(start..start + 12, end - 12);
    Some(start + 4)
}

/// Sets the type of service or traffic class.
pub fn set_tos(frame: &mut [u8], headers: &Headers, tos: u8) {
    let l3 = usize::from(headers.l3);
    let old = be16(frame, l3);
    match headers.family {
        Family::V4 => {
            let new = old & 0xff00 | u16::from(tos);
            put(frame, l3, new.to_be_bytes());
            update_at(frame, l3 + 10, |sum| checksum::update(sum, old, new));
        }
        Family::V6 => put(frame, l3, (old & 0xf00f | u16::from(tos) << 4).to_be_bytes()),
        Family::Arp | Family::Other => {}
    }
}

/// ECN bits of the outer header that is put on a packet: a copy of the inner ones.
#[inline(always)]
pub const fn encapsulate_ecn(inner_tos: u8) -> u8 {
    // RFC 6040 section 4.1: normal mode.
    inner_tos & 3
}

/// ECN bits of a packet whose outer header is taken off. `None`: the packet must be dropped.
pub const fn combine_ecn(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    // RFC 6040 section 4.2: figure 4.
    match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// Combines the ECN bits of a decapsulated frame with those of its outer header. `false`: the packet must be dropped.
/// Frames that are not IP have no such bits and stay unchanged.
#[inline]
pub fn decapsulate_ecn(frame: &mut [u8], headers: &Headers, outer: u8) -> bool {
    if !headers.is_ip() {
        return true;
    }
    match combine_ecn(headers.tos, outer) {
        None => false,
        Some(ecn) => {
            if ecn != headers.tos & 3 {
                set_tos(frame, headers, headers.tos & !3 | ecn);
            }
            true
        }
    }
}
