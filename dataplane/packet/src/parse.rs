//! The parser of tenants' frames, in one pass: reads what forwarding needs and nothing else.
//!
//! It runs on the NIC's processor for every packet. Its fast path takes Ethernet, IPv4 without options, TCP or UDP, with
//! one length check; `parse_full.rs` takes everything else. Lengths are checked as far as [`edit`](crate::edit) and the
//! flow key rely on them. The receiver checks the checksum of the inner IPv4 header.

use crate::bytes::field;
use crate::headers::{Family, Fragment, Headers};
use crate::parse_full;
use crate::reason::Reason;

/// Bytes that the fast path reads: up to the TCP flags of an untagged frame. A UDP packet with less than six bytes
/// of payload may be shorter and takes the full parser.
const FAST: usize = 48;

/// Parses a frame that begins with an Ethernet header and has no frame check sequence.
///
/// # Errors
/// Why the frame cannot be forwarded.
#[inline(always)]
pub fn parse(frame: &[u8]) -> Result<Headers, Reason> {
    let Some(head) = frame.first_chunk::<FAST>() else { return parse_full::parse(frame) };
    // EtherType, version and header length, type of service.
    let kind = u32::from_be_bytes(field::<12, 4, FAST>(head));
    // Fragment word, TTL, protocol.
    let rest = u32::from_be_bytes(field::<20, 4, FAST>(head));
    let ports = u32::from_be_bytes(field::<34, 4, FAST>(head));
    let total = u16::from_be_bytes(field::<16, 2, FAST>(head));
    let protocol = rest as u8;
    let tcp = protocol == 6;
    let least = if tcp { 40 } else { 28 };
    let common = kind & 0xffff_ff00 == 0x0800_4500
        && rest & 0x3fff_0000 == 0
        && (tcp || protocol == 17)
        && total >= least
        && usize::from(total) <= frame.len() - 14;
    if !common {
        return parse_full::parse(frame);
    }
    Ok(Headers {
        l3: 14,
        l4: 34,
        l3_len: total,
        ethertype: 0x0800,
        vlan_tci: 0,
        l4_src: (ports >> 16) as u16,
        l4_dst: ports as u16,
        tagged: false,
        family: Family::V4,
        protocol,
        fragment: Fragment::None,
        ttl: (rest >> 8) as u8,
        tos: kind as u8,
        tcp_flags: if tcp { head[47] } else { 0 },
    })
}
