//! The fast parser: what a tenant's frame is, in one pass and without looking at more than forwarding needs.
//!
//! It runs on the NIC's processor for every packet. The common case, Ethernet, IPv4 without options, TCP or UDP, is a
//! straight line with one length check; everything else is in `slow.rs`. Lengths are checked as far as the edits of
//! [`edit`](crate::edit) and the flow key rely on them. The checksum of the inner IPv4 header is left to the receiver.

use crate::bytes::field;
use crate::reason::Reason;
use crate::slow;

/// What a frame carries, as far as the data path tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Family {
    /// Another EtherType.
    #[default]
    Other = 0,
    /// ARP for IPv4 over Ethernet.
    Arp = 1,
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

impl From<Family> for u16 {
    #[inline(always)]
    fn from(family: Family) -> u16 {
        family as u16
    }
}

/// Which part of an IP packet a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Fragment {
    /// The whole packet.
    #[default]
    None = 0,
    /// The first fragment: it has the transport header.
    First = 1,
    /// A later fragment: it has no transport header.
    Later = 2,
}

/// What [`parse`] finds. Offsets count from the first byte of the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    /// Offset of the network header: 14, or 18 behind a VLAN tag.
    pub l3: u16,
    /// Offset of the transport header, whatever the protocol; 0 if there is none (later fragment, no IP).
    pub l4: u16,
    /// Length of the IP packet, headers included; the frame may be longer (padding). 0 if it is not IP.
    pub l3_len: u16,
    /// EtherType behind the VLAN tag, if there is one.
    pub ethertype: u16,
    /// Tag control information of the VLAN tag, or 0.
    pub vlan_tci: u16,
    /// Source port; ICMP: the type.
    pub l4_src: u16,
    /// Destination port; ICMP: the identifier of an echo, else the code.
    pub l4_dst: u16,
    /// Whether there is a VLAN tag.
    pub tagged: bool,
    /// What the frame carries.
    pub family: Family,
    /// Protocol behind the IP header and its extension headers.
    pub protocol: u8,
    /// Which part of an IP packet it is.
    pub fragment: Fragment,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class: DSCP and ECN.
    pub tos: u8,
    /// TCP flags, FIN being bit 0.
    pub tcp_flags: u8,
}

impl Headers {
    /// VLAN id of the tag, 0 if there is none or if it gives only a priority.
    #[inline(always)]
    pub const fn vlan_id(&self) -> u16 {
        self.vlan_tci & 0xfff
    }

    /// ECN bits of the IP header; 0 if it is not IP.
    #[inline(always)]
    pub const fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// Whether it is IPv4 or IPv6.
    #[inline(always)]
    pub const fn is_ip(&self) -> bool {
        matches!(self.family, Family::V4 | Family::V6)
    }
}

/// Bytes that the fast path reads: up to the TCP flags of an untagged frame. A UDP packet with less than six bytes
/// of payload may be shorter; it takes the slow way.
const FAST: usize = 48;

/// Parses a frame that begins with an Ethernet header and has no frame check sequence.
///
/// # Errors
/// Why the frame cannot be forwarded.
#[inline(always)]
pub fn parse(frame: &[u8]) -> Result<Headers, Reason> {
    let Some(head) = frame.first_chunk::<FAST>() else { return slow::parse(frame) };
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
        return slow::parse(frame);
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
