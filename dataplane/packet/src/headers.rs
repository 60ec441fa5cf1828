//! Parsed headers of a tenant frame: what the parser hands to flow keys, edits and policy.

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

/// What [`parse`](crate::parse()) finds. Offsets count from the first byte of the Ethernet header.
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
