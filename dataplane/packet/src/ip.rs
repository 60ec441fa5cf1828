//! What IPv4 and IPv6 share: protocol numbers.

/// Protocol number of IPv4 and next header of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: Protocol = Protocol(0);
    /// ICMP.
    pub const ICMP: Protocol = Protocol(1);
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// IPv6 routing header.
    pub const ROUTING: Protocol = Protocol(43);
    /// IPv6 fragment header.
    pub const FRAGMENT: Protocol = Protocol(44);
    /// GRE.
    pub const GRE: Protocol = Protocol(47);
    /// Authentication header.
    pub const AUTHENTICATION: Protocol = Protocol(51);
    /// ICMPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// Nothing follows an IPv6 header.
    pub const NO_NEXT_HEADER: Protocol = Protocol(59);
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: Protocol = Protocol(60);
}
