//! Why a packet was dropped, shown to the host, or why its flow is not offloaded: one list, the same word everywhere.

/// What a reason explains.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// The packet ended.
    Drop,
    /// The packet went up to the policy engine.
    Punt,
    /// The packet went on, but its flow is not in the NIC.
    NotOffloaded,
}

macro_rules! reasons {
    ($($name:ident = $number:literal, $class:ident, $word:literal, $text:literal;)*) => {
        /// Why. The numbers are stable: they stand in descriptors and registers.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $text] $name = $number,)*
        }

        impl Reason {
            /// All of them, by number.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The word, as it stands in counters, metrics, traces and on the command line.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// One sentence for a person.
            pub const fn describe(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// What it explains.
            pub const fn class(self) -> Class {
                match self { $(Reason::$name => Class::$class,)* }
            }

            /// From its number.
            #[inline]
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number { $($number => Some(Reason::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    Truncated = 1, Drop, "truncated", "the frame ends before the headers it announces";
    BadVersion = 2, Drop, "bad_version", "the IP version does not fit the EtherType, or the interface version is not ours";
    BadHeaderLength = 3, Drop, "bad_header_length", "the IP header says it is shorter than an IP header can be";
    BadIpChecksum = 4, Drop, "bad_ip_checksum", "the checksum of the inner IPv4 header is wrong";
    Unsupported = 5, Drop, "unsupported", "a protocol or request that is not supported";
    Runt = 6, Drop, "runt", "shorter than an Ethernet frame can be";
    TooLong = 7, Drop, "too_long", "longer than a packet buffer or the MTU allows";
    BadFcs = 8, Drop, "bad_fcs", "the Ethernet frame check sequence is wrong";
    OuterTruncated = 9, Drop, "outer_truncated", "an encapsulated packet ends before its outer headers do";
    OuterIpChecksum = 10, Drop, "outer_ip_checksum", "the checksum of the outer IPv4 header is wrong";
    OuterUdpChecksum = 11, Drop, "outer_udp_checksum", "the outer UDP checksum is not zero and wrong";
    OuterFragment = 12, Drop, "outer_fragment", "an encapsulated packet is fragmented on the outside";
    OuterNotOurs = 13, Drop, "outer_not_ours", "the outer destination is no provider address of this host";
    OuterEcn = 14, Drop, "outer_ecn", "congestion was marked on the outside of a packet whose inside cannot carry the mark (RFC 6040)";
    VxlanNoIFlag = 15, Drop, "vxlan_no_i_flag", "a VXLAN header without the I flag names no network (RFC 7348)";
    GreFlags = 16, Drop, "gre_flags", "a GRE header with checksum or sequence number, which NVGRE forbids (RFC 7637)";
    GreNoKey = 17, Drop, "gre_no_key", "a GRE header without key names no network (RFC 7637)";
    GreVersion = 18, Drop, "gre_version", "a GRE version other than 0";
    GreProtocol = 19, Drop, "gre_protocol", "a GRE packet that does not carry Ethernet";
    UnknownSourcePa = 20, Drop, "unknown_source_pa", "an encapsulated packet from a provider address that the policy does not know";
    PaNotInVsid = 21, Drop, "pa_not_in_vsid", "an encapsulated packet from a host that has no part in that virtual subnet";
    UnknownVsid = 22, Drop, "unknown_vsid", "a virtual subnet that this host does not have";
    NoVport = 23, Drop, "no_vport", "no virtual port is assigned to that function or address";
    VportDown = 24, Drop, "vport_down", "the virtual port is down";
    SpoofedMac = 25, Drop, "spoofed_mac", "the source MAC is not that of the virtual port";
    SpoofedCa = 26, Drop, "spoofed_ca", "the source address is not one of the virtual port";
    VlanNotAllowed = 27, Drop, "vlan_not_allowed", "a VLAN tag that the virtual port may not use";
    AclDeny = 28, Drop, "acl_deny", "a rule of an access control list denies it";
    AclDenyDefault = 29, Drop, "acl_deny_default", "no rule of the access control lists allows it";
    AclNoConnection = 30, Drop, "acl_no_connection", "a segment in the middle of a connection that is not known";
    UnknownDestinationMac = 31, Drop, "unknown_destination_mac", "no port of the virtual subnet has the destination MAC";
    UnknownDestinationCa = 32, Drop, "unknown_destination_ca", "the destination address lies in a subnet of the virtual network, but no port has it";
    NoRoute = 33, Drop, "no_route", "no subnet of the virtual network holds the destination address";
    Isolated = 34, Drop, "isolated", "the destination belongs to another routing domain";
    TtlExceeded = 35, Drop, "ttl_exceeded", "the time to live ran out at the router";
    ArpUnknown = 36, Drop, "arp_unknown", "an ARP request for an address that the policy does not know";
    ArpSuppressed = 37, Drop, "arp_suppressed", "an ARP packet that the policy answers for or has no use for";
    MulticastNotCarried = 38, Drop, "multicast_not_carried", "multicast that is not carried beyond its subnet";
    ToRouter = 39, Drop, "to_router", "addressed to the router itself, which serves nothing there";
    ConnTableFull = 40, Drop, "conn_table_full", "the connection table is full: established connections go on, new ones are refused";
    Hairpin = 41, Drop, "hairpin", "would leave by the port it came in by";
    PendingOverflow = 42, Drop, "pending_overflow", "more packets waited for one flow's verdict than there is room for";
    ExceptionFull = 43, Drop, "exception_full", "the host's exception queue was full";
    NextHopUnresolved = 44, Drop, "next_hop_unresolved", "the next hop in the provider network does not answer ARP";
    FirmwareRestart = 45, Drop, "firmware_restart", "was in the firmware when it was restarted";
    HostRestart = 46, Drop, "host_restart", "was at the host when its daemon was restarted";
    UplinkDown = 47, Drop, "uplink_down", "no uplink has a link";
    RingFull = 48, Drop, "ring_full", "the receiver's ring had no buffers";
    NoBuffer = 49, Drop, "no_buffer", "no packet buffer, or no room in it";
    DmaFault = 50, Drop, "dma_fault", "an address that was not mapped, or memory that went away";
    BadDescriptor = 51, Drop, "bad_descriptor", "a descriptor or command that makes no sense";
    NoReceiver = 52, Drop, "no_receiver", "a replication group without a member that could take a copy";
    QueueStopped = 53, Drop, "queue_stopped", "the receiver's queue is stopped or was never set up";
    Miss = 54, Punt, "miss", "the first packet of a flow";
    Stale = 55, Punt, "stale", "the flow was made under an older policy";
    Pending = 56, Punt, "pending", "the flow's first packet is still being decided on";
    TcpControl = 57, Punt, "tcp_control", "a copy of a TCP segment with SYN, FIN or RST";
    Fragment = 58, Punt, "fragment", "an IP fragment";
    Ttl = 59, Punt, "ttl", "the time to live ends at the router";
    Control = 60, Punt, "control", "control traffic of the provider network: ARP, ICMP to a provider address";
    MtuExceeded = 61, Punt, "mtu_exceeded", "too long for the provider network once encapsulated";
    PendingFull = 62, Punt, "pending_full", "too many flows wait for a verdict";
    TableFull = 63, NotOffloaded, "table_full", "no room for the flow in the table";
    VportQuota = 64, NotOffloaded, "vport_quota", "the virtual port has used its share of the table";
    NoFlowOffload = 65, NotOffloaded, "no_flow_offload", "the NIC has no flow table";
    NotIp = 66, NotOffloaded, "not_ip", "not IP: decided packet by packet";
    GroupTooLarge = 67, NotOffloaded, "group_too_large", "the replication group has more members than the NIC takes";
    NeverLive = 68, NotOffloaded, "never_live", "answered or consumed by the host";
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.as_str())
    }
}

impl core::str::FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(word: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|r| r.as_str() == word).ok_or(UnknownReason)
    }
}

/// A word that is no reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownReason;

impl core::fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no such reason: `culvert drops --all` lists them")
    }
}

impl core::error::Error for UnknownReason {}
