//! The full parser behind the fast path of [`parse`](crate::parse()): VLAN tags, IP options, fragments, IPv6 with
//! extension headers, ICMP, ARP, short frames. It accepts every frame that the fast path accepts, with the same result.

use crate::bytes::{be16, be32};
use crate::ethernet::EtherType;
use crate::headers::{Family, Fragment, Headers};
use crate::ip::Protocol;
use crate::ipv6;
use crate::reason::Reason;

#[cold]
#[inline(never)]
pub(crate) fn parse(frame: &[u8]) -> Result<Headers, Reason> {
    if frame.len() < 14 {
        return Err(Reason::Truncated);
    }
    let mut h = Headers { l3: 14, ethertype: be16(frame, 12), ..Headers::default() };
    if h.ethertype == EtherType::VLAN.0 {
        if frame.len() < 18 {
            return Err(Reason::Truncated);
        }
        h = Headers {
            l3: 18,
            ethertype: be16(frame, 16),
            vlan_tci: be16(frame, 14),
            tagged: true,
            ..Headers::default()
        };
    }
    match EtherType(h.ethertype) {
        EtherType::IPV4 => ipv4(frame, &mut h)?,
        EtherType::IPV6 => ipv6(frame, &mut h)?,
        EtherType::ARP => arp(frame, &mut h)?,
        // A second tag would hide addresses from the checks that follow.
        EtherType::VLAN | EtherType::SERVICE_VLAN | EtherType::OLD_SERVICE_VLAN => {
            return Err(Reason::Unsupported);
        }
        EtherType(length) if length < 0x0600 => return Err(Reason::Unsupported),
        _ => {}
    }
    Ok(h)
}

fn ipv4(frame: &[u8], h: &mut Headers) -> Result<(), Reason> {
    let l3 = usize::from(h.l3);
    let available = frame.len() - l3;
    let first = frame.get(l3).copied().ok_or(Reason::Truncated)?;
    if first >> 4 != 4 {
        return Err(Reason::BadVersion);
    }
    let header_len = usize::from(first & 0xf) * 4;
    if header_len < 20 {
        return Err(Reason::BadHeaderLength);
    }
    if available < header_len {
        return Err(Reason::Truncated);
    }
    let total = usize::from(be16(frame, l3 + 2));
    if total < header_len {
        return Err(Reason::BadHeaderLength);
    }
    if total > available {
        return Err(Reason::Truncated);
    }
    let word = be16(frame, l3 + 6);
    let offset = word & 0x1fff;
    h.family = Family::V4;
    h.l3_len = total as u16;
    h.tos = frame[l3 + 1];
    h.ttl = frame[l3 + 8];
    h.protocol = frame[l3 + 9];
    h.fragment = fragment(offset, word & 0x2000 != 0);
    transport(&frame[..l3 + total], h, l3 + header_len, offset)
}

fn ipv6(frame: &[u8], h: &mut Headers) -> Result<(), Reason> {
    let l3 = usize::from(h.l3);
    let available = frame.len() - l3;
    if frame.get(l3).is_some_and(|b| b >> 4 != 6) {
        return Err(Reason::BadVersion);
    }
    if available < ipv6::HEADER_LEN {
        return Err(Reason::Truncated);
    }
    let total = usize::from(be16(frame, l3 + 4)) + ipv6::HEADER_LEN;
    if total > available {
        return Err(Reason::Truncated);
    }
    h.family = Family::V6;
    h.l3_len = u16::try_from(total).map_err(|_| Reason::Unsupported)?;
    h.tos = (be16(frame, l3) >> 4) as u8;
    h.ttl = frame[l3 + 7];
    let packet = &frame[..l3 + total];
    let walk = ipv6::walk(&packet[l3 + ipv6::HEADER_LEN..], frame[l3 + 6])?;
    h.protocol = walk.protocol.0;
    h.fragment = walk.fragment.map_or(Fragment::None, |f| fragment(f.offset, f.more));
    if walk.protocol == Protocol::NO_NEXT_HEADER {
        return Ok(());
    }
    let l4 = l3 + ipv6::HEADER_LEN + walk.length;
    transport(packet, h, l4, walk.fragment.map_or(0, |f| f.offset))
}

/// `offset` is in units of eight bytes.
fn fragment(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// `packet` ends where the IP packet ends; the transport header is at `l4`, unless it is a later fragment.
fn transport(packet: &[u8], h: &mut Headers, l4: usize, fragment_offset: u16) -> Result<(), Reason> {
    let protocol = Protocol(h.protocol);
    if h.fragment == Fragment::Later {
        // RFC 1858 section 3.2.1: a fragment at offset 1 can overwrite the flags of a TCP header.
        let overwrites = fragment_offset == 1 && protocol == Protocol::TCP;
        return if overwrites { Err(Reason::TinyFragment) } else { Ok(()) };
    }
    let header = packet.get(l4..).unwrap_or_default();
    let least = match protocol {
        Protocol::TCP => 20,
        Protocol::UDP | Protocol::ICMP => 8,
        Protocol::ICMPV6 => 4,
        _ => 0,
    };
    if header.len() < least {
        return Err(match h.fragment {
            Fragment::First => Reason::TinyFragment,
            _ => Reason::Truncated,
        });
    }
    h.l4 = l4 as u16;
    match protocol {
        Protocol::TCP | Protocol::UDP => {
            let ports = be32(header, 0);
            h.l4_src = (ports >> 16) as u16;
            h.l4_dst = ports as u16;
            if protocol == Protocol::TCP {
                h.tcp_flags = header[13];
            }
        }
        Protocol::ICMP | Protocol::ICMPV6 => {
            let kind = header[0];
            h.l4_src = u16::from(kind);
            h.l4_dst = if crate::icmp::has_identifier(h.family, kind) {
                if header.len() < 8 {
                    return Err(Reason::Truncated);
                }
                be16(header, 4)
            } else {
                u16::from(header[1])
            };
        }
        _ => {}
    }
    Ok(())
}

fn arp(frame: &[u8], h: &mut Headers) -> Result<(), Reason> {
    let packet = frame.get(usize::from(h.l3)..).unwrap_or_default();
    if packet.len() < crate::arp::LEN {
        return Err(Reason::Truncated);
    }
    if !crate::arp::is_ipv4_over_ethernet(packet) {
        return Err(Reason::Unsupported);
    }
    h.family = Family::Arp;
    Ok(())
}
