//! Why a packet was dropped, given to the host, or is not served by the NIC alone: one enum and one set of words, in
//! code, counters, metrics, traces and tools.
//!
//! Numbers and words are stable: they are in descriptors, flow records and saved counters. New ones take free numbers
//! of their group; none is used again.

use core::fmt;
use core::str::FromStr;

use crate::id::ParseError;

/// What usually happens to packets with a reason. An engine may drop where another can still give to the host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// The packet is dropped.
    Drop,
    /// The packet, or a copy of it, goes to the host.
    Punt,
    /// The packet is forwarded, but in software.
    NotOffloaded,
}

macro_rules! reasons {
    ($($number:literal $name:ident $word:literal $class:ident $sentence:literal,)*) => {
        /// A reason. 0 is no reason's number.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $sentence] $name = $number,)*
        }

        impl Reason {
            /// All of them, by number.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $word,)*
                }
            }

            /// One plain sentence.
            pub const fn describe(self) -> &'static str {
                match self {
                    $(Reason::$name => $sentence,)*
                }
            }

            /// What usually happens to packets with it.
            pub const fn class(self) -> Class {
                match self {
                    $(Reason::$name => Class::$class,)*
                }
            }

            /// From its number.
            pub const fn from_u8(number: u8) -> Option<Reason> {
                match number {
                    $($number => Some(Reason::$name),)*
                    _ => None,
                }
            }
        }
    };
}

#[rustfmt::skip]
reasons! {
    1 Truncated "truncated" Drop "The frame is shorter than its headers say.",
    2 BadVersion "bad_version" Drop "The version in the IP header does not fit the EtherType.",
    3 BadHeaderLength "bad_header_length" Drop "A header gives itself a length that it cannot have.",
    4 BadIpChecksum "bad_ip_checksum" Drop "The checksum of the inner IPv4 header is wrong.",
    5 Unsupported "unsupported" Drop "A frame of a kind that is not carried: two VLAN tags, IEEE 802.3 length, odd ARP, too many extension headers.",
    6 TinyFragment "tiny_fragment" Drop "A fragment that hides or overwrites its transport header (RFC 1858).",
    16 OuterTruncated "outer_truncated" Drop "The encapsulated frame from the wire is shorter than its outer headers say.",
    17 OuterBadHeader "outer_bad_header" Drop "The outer IP header has a wrong version or length.",
    18 OuterIpChecksum "outer_ip_checksum" Drop "The checksum of the outer IPv4 header is wrong.",
    19 OuterUdpChecksum "outer_udp_checksum" Drop "The outer UDP checksum is not zero and wrong.",
    20 OuterFragment "outer_fragment" Drop "The encapsulated packet was fragmented on its way: the PA network has a smaller MTU than configured.",
    21 OuterNotOurs "outer_not_ours" Drop "The outer destination is not a provider address of this host.",
    22 OuterEcn "outer_ecn" Drop "The outer header reports congestion, but the inner packet does not take part in ECN (RFC 6040).",
    23 VxlanNoIFlag "vxlan_no_i_flag" Drop "The VXLAN header does not have its I flag set, so that it names no network.",
    24 GreFlags "gre_flags" Drop "The GRE header has a checksum, a sequence number or a reserved flag, which NVGRE does not allow.",
    25 GreNoKey "gre_no_key" Drop "The GRE header has no key, so that it names no network.",
    26 GreVersion "gre_version" Drop "The version of the GRE header is not 0.",
    27 GreProtocol "gre_protocol" Drop "The GRE header carries something else than Ethernet.",
    28 UnknownSourcePa "unknown_source_pa" Drop "The outer source is not a provider address that the policy knows.",
    29 PaNotInVsid "pa_not_in_vsid" Drop "The outer source is a known provider address, but has nothing in this VSID.",
    30 UnknownVsid "unknown_vsid" Drop "No vport of this host is in the VSID.",
    40 NoVport "no_vport" Drop "There is no such vport.",
    41 VportDown "vport_down" Drop "The vport is down.",
    42 SpoofedMac "spoofed_mac" Drop "The source MAC is not the vport's.",
    43 SpoofedCa "spoofed_ca" Drop "The source address is not the vport's.",
    44 VlanNotAllowed "vlan_not_allowed" Drop "The vport may not use this VLAN tag.",
    45 AclDeny "acl_deny" Drop "A rule of an access control list denies it.",
    46 AclDenyDefault "acl_deny_default" Drop "No rule of an access control list allows it, and the default is to deny.",
    47 AclNoConnection "acl_no_connection" Drop "It belongs to no connection that was allowed.",
    48 UnknownDestinationMac "unknown_destination_mac" Drop "The VSID has no such destination MAC.",
    49 UnknownDestinationCa "unknown_destination_ca" Drop "The destination subnet has no such address.",
    50 NoRoute "no_route" Drop "No subnet of the virtual network contains the destination address.",
    51 Isolated "isolated" Drop "The destination is in another virtual network.",
    52 TtlExceeded "ttl_exceeded" Drop "The router would have to send it on with a TTL of 0.",
    53 MtuExceeded "mtu_exceeded" Punt "It is too long for the PA network.",
    54 ArpUnknown "arp_unknown" Drop "An ARP or neighbour request for an address that the policy does not know; nobody answers.",
    55 ArpSuppressed "arp_suppressed" Drop "An ARP or neighbour message that has been answered from policy or is not carried.",
    56 MulticastNotCarried "multicast_not_carried" Drop "A multicast that the virtual network does not carry.",
    57 ToRouter "to_router" Drop "Addressed to the distributed router itself, which does not take it.",
    58 ConnTableFull "conn_table_full" Drop "The connection table is full: new connections are refused.",
    59 VportQuota "vport_quota" NotOffloaded "The vport has used up its share of the flow table.",
    60 Hairpin "hairpin" Drop "It would leave by the port that it came from.",
    61 PolicyMissing "policy_missing" Drop "The policy of this vport has not arrived yet.",
    80 Miss "miss" Punt "No flow for it: the host decides.",
    81 Stale "stale" Punt "Its flow was made from an older policy: the host decides again.",
    82 Pending "pending" Punt "The host is deciding on its flow.",
    83 TcpControl "tcp_control" Punt "Copy of a TCP segment that opens or closes a connection.",
    84 Fragment "fragment" Punt "A fragment: the host forwards it.",
    85 Ttl "ttl" Punt "Its TTL does not allow routing: the host answers.",
    86 Control "control" Punt "Control traffic of the PA network: ARP, ICMP and the like.",
    87 PendingFull "pending_full" Punt "Too many flows wait for the host: this one is forwarded by it.",
    88 TableFull "table_full" NotOffloaded "The flow table has no room: the host forwards it.",
    89 NextHopUnresolved "next_hop_unresolved" Punt "The MAC of the PA network's next hop is not known yet.",
    90 Sampled "sampled" Punt "Copy for a capture.",
    100 PendingOverflow "pending_overflow" Drop "Too many packets wait for the host's decision on their flow.",
    101 UpcallFull "upcall_full" Drop "The queue to the host is full.",
    102 FirmwareRestart "firmware_restart" Drop "The firmware held it when it was restarted.",
    103 HostRestart "host_restart" Drop "The host held it when it was restarted.",
    104 UplinkDown "uplink_down" Drop "The uplink is down and no other serves.",
    105 RingFull "ring_full" Drop "The receiver's ring is full.",
    106 NoBuffer "no_buffer" Drop "No packet buffer, or no room in it.",
    107 DmaFault "dma_fault" Drop "The descriptor points outside the memory that was mapped.",
    108 BadDescriptor "bad_descriptor" Drop "A descriptor that makes no sense.",
    109 BadFcs "bad_fcs" Drop "The frame check sequence from the wire is wrong.",
    110 TooLong "too_long" Drop "Longer than the port takes.",
    111 Runt "runt" Drop "Shorter than an Ethernet frame may be.",
    112 NextHopTimeout "next_hop_timeout" Drop "The PA network's next hop does not answer.",
    113 GroupMissing "group_missing" Drop "The replication group or tunnel that its flow names is not there.",
    114 QueueReset "queue_reset" Drop "The queue was reset while it was waiting.",
    115 NoReceiver "no_receiver" Drop "The subnet has no other member to receive a copy.",
    116 QueueStopped "queue_stopped" Drop "The receiver's queue is stopped or was never set up.",
    117 WorkerFull "worker_full" Drop "The switch worker that serves the vport does not keep up.",
    140 NoFlowOffload "no_flow_offload" NotOffloaded "This NIC has no flow offload.",
    141 BroadcastReplicationInSoftware "broadcast_replication_in_software" NotOffloaded "This NIC does not replicate: broadcasts are copied in software.",
    142 GroupTooLarge "group_too_large" NotOffloaded "The broadcast has more destinations than a replication group of the NIC can hold.",
    143 EncapNotOffloaded "encap_not_offloaded" NotOffloaded "This NIC does not do this encapsulation.",
    144 NatNotOffloaded "nat_not_offloaded" NotOffloaded "This NIC does not translate addresses.",
    145 Ipv6OuterNotOffloaded "ipv6_outer_not_offloaded" NotOffloaded "This NIC does not encapsulate in IPv6.",
    146 FragmentsNotOffloaded "fragments_not_offloaded" NotOffloaded "Fragments are always forwarded by the host.",
    147 SyntheticPort "synthetic_port" NotOffloaded "The vport has no virtual function: its frames pass through software.",
    148 NicTableFull "nic_table_full" NotOffloaded "The NIC's flow table has no room.",
    149 NicQuota "nic_quota" NotOffloaded "The vport has used up its share of the NIC's flow table.",
    151 OffloadDisabled "offload_disabled" NotOffloaded "Offload is turned off for this vport.",
    152 NicDown "nic_down" NotOffloaded "The NIC or its firmware is not running.",
    153 NotIp "not_ip" NotOffloaded "Not IP: decided packet by packet.",
    154 NeverLive "never_live" NotOffloaded "The host answers or consumes it.",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Self, ParseError> {
        Reason::ALL.iter().copied().find(|r| r.as_str() == word).ok_or(ParseError::Reason)
    }
}
