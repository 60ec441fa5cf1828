//! The flow record as it lies in memory: key, hot part and cold part, 64 bytes each, little-endian.
//!
//! The three parts of record `i` are element `i` of three arrays, so that a hit touches only its bucket, its key and its
//! hot part. Every field has a fixed offset and there are no pointers: RTL reads the same bytes.

use core::mem::{offset_of, size_of};

use culvert_packet::{Encap, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::port::Port;

/// Direction of a flow, seen from the host's vports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From a vport of this host.
    Outbound = 1,
    /// From the wire, encapsulated.
    Inbound = 2,
}

/// The flow key: what a packet is matched by. Packets with equal keys take the same record.
///
/// | offset | size | field |
/// | --- | --- | --- |
/// | 0 | 1 | direction (1 outbound, 2 inbound; 0 marks an unused record) |
/// | 1 | 1 | encapsulation of an inbound packet (1 VXLAN, 2 NVGRE), else 0 |
/// | 2 | 2 | outbound: source vport; inbound: index of the outer source PA |
/// | 4 | 4 | inbound: VSID; outbound: 0 |
/// | 8 | 6 | inner destination MAC |
/// | 14 | 2 | VLAN id of the inner 802.1Q tag with bit 15 set, or 0 for an untagged frame |
/// | 16 | 6 | inner source MAC |
/// | 22 | 1 | address family: 4, 6, or 0 for anything else |
/// | 23 | 1 | IP protocol |
/// | 24 | 16 | source address (IPv4 in the first four bytes) |
/// | 40 | 16 | destination address |
/// | 56 | 2 | source port, or ICMP type |
/// | 58 | 2 | destination port, ICMP identifier (echo) or code, or EtherType when the family is 0 |
/// | 60 | 1 | fragment class: 0 whole, 1 first, 2 later |
/// | 61 | 3 | 0 |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// See [`Direction`]; 0 in an unused record.
    pub direction: u8,
    /// Encapsulation of an inbound packet: `Encap as u8`; outbound 0.
    pub encap: u8,
    /// Outbound: the source vport. Inbound: the index of the outer source PA.
    pub source: u16,
    /// Inbound: the VSID (VNI, or upper 24 bits of the GRE key). Outbound: 0.
    pub vsid: u32,
    /// Inner destination MAC.
    pub dst_mac: [u8; 6],
    /// `0x8000 | VLAN id`, or 0 when the inner frame is untagged.
    pub vlan: u16,
    /// Inner source MAC.
    pub src_mac: [u8; 6],
    /// 4, 6, or 0.
    pub family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Source address in network order; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Destination address in network order; IPv4 in the first four bytes.
    pub dst: [u8; 16],
    /// Source port, or ICMP type. Host order.
    pub src_port: u16,
    /// Destination port; ICMP identifier of an echo, else code; EtherType when `family` is 0. Host order.
    pub dst_port: u16,
    /// 0 whole packet, 1 first fragment, 2 later fragment.
    pub fragment: u8,
    /// Always 0.
    pub zero: [u8; 3],
}

bitflags::bitflags! {
    /// What a record does to a packet: the composed actions of all layers (the transposition).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Actions: u32 {
        /// Take the outer headers off (inbound).
        const POP_OUTER = 1 << 0;
        /// Put the outer headers of the record's tunnel on.
        const PUSH_OUTER = 1 << 1;
        /// Send to each member of replication group `tunnel`.
        const REPLICATE = 1 << 2;
        /// Routed: source MAC becomes the router's, TTL or hop limit goes down by one.
        const ROUTE = 1 << 3;
        /// Destination MAC becomes `dst_mac`.
        const SET_DST_MAC = 1 << 4;
        /// Take the inner VLAN tag off.
        const POP_VLAN = 1 << 5;
        /// Put the inner VLAN tag `vlan` on.
        const PUSH_VLAN = 1 << 6;
        /// Source address becomes the translated one.
        const SET_SRC_ADDR = 1 << 7;
        /// Destination address becomes the translated one.
        const SET_DST_ADDR = 1 << 8;
        /// Source port becomes `nat_port`.
        const SET_SRC_PORT = 1 << 9;
        /// Destination port becomes `nat_port`.
        const SET_DST_PORT = 1 << 10;
        /// TCP segments with SYN, FIN or RST are also copied to the host.
        const COPY_TCP_CONTROL = 1 << 11;
        /// Every packet is also copied to the capture queue.
        const CAPTURE = 1 << 12;
        /// Drop, with the reason in the low byte of `nat_port`.
        const DROP = 1 << 13;
        /// Actions that change the inner packet. The fast path takes records without them.
        const INNER_EDITS = Self::ROUTE.bits() | Self::SET_DST_MAC.bits() | Self::POP_VLAN.bits()
            | Self::PUSH_VLAN.bits() | Self::SET_SRC_ADDR.bits() | Self::SET_DST_ADDR.bits()
            | Self::SET_SRC_PORT.bits() | Self::SET_DST_PORT.bits();
    }
}

/// The part of a record that every hit reads and writes: actions, generations, counters.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FlowHot {
    /// [`Actions`] as bits.
    pub actions: u32,
    /// Index of the tunnel, or of the replication group.
    pub tunnel: u16,
    /// Where the packet leaves: [`Port`] as bits. The uplink is the tunnel's when `PUSH_OUTER` is set.
    pub out: u16,
    /// New destination MAC.
    pub dst_mac: [u8; 6],
    /// VLAN id to push.
    pub vlan: u16,
    /// New IPv4 address in network order (an IPv6 one is in the cold part).
    pub nat_addr: [u8; 4],
    /// New port; reason of a drop.
    pub nat_port: u16,
    /// Entropy of the outer header: UDP source port (VXLAN), low byte is the FlowID (NVGRE).
    pub entropy: u16,
    /// VSID to encapsulate with.
    pub vsid: u32,
    /// Time of the last packet, milliseconds, wrapping.
    pub last_used: u32,
    /// Wire packets.
    pub packets: u64,
    /// Inner bytes, Ethernet header included, FCS not.
    pub bytes: u64,
    /// Generation of the local source vport when the record was built.
    pub gen_src: u32,
    /// Generation of the local destination vport.
    pub gen_dst: u32,
    /// Generation of the destination's mapping.
    pub gen_map: u32,
    /// Which of the 64 k mapping cells `gen_map` belongs to.
    pub map_cell: u16,
    /// 0: live. Else the pending slot, plus one.
    pub pending: u16,
}

/// The part of a record that only control packets and the host read.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FlowCold {
    /// The host's handle of the connection this record caches.
    pub connection: u64,
    /// New IPv6 address.
    pub nat_addr6: [u8; 16],
    /// Matched rule of each layer, outermost first; 0 where no rule matched.
    pub rules: [u32; 8],
    /// When the record was made, milliseconds, wrapping.
    pub created: u32,
    /// Counts reuses of this slot, so that a stale handle is recognised.
    pub incarnation: u32,
}

/// A whole record, as it travels between host and NIC.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FlowRecord {
    /// What it matches.
    pub key: FlowKey,
    /// What it does.
    pub hot: FlowHot,
    /// What the host keeps with it.
    pub cold: FlowCold,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 64 && size_of::<FlowHot>() == 64 && size_of::<FlowCold>() == 64);
    assert!(size_of::<FlowRecord>() == 192);
    assert!(offset_of!(FlowKey, dst_mac) == 8 && offset_of!(FlowKey, src_mac) == 16);
    assert!(offset_of!(FlowKey, src) == 24 && offset_of!(FlowKey, dst) == 40);
    assert!(offset_of!(FlowKey, src_port) == 56 && offset_of!(FlowKey, fragment) == 60);
    assert!(offset_of!(FlowHot, dst_mac) == 8 && offset_of!(FlowHot, nat_addr) == 16);
    assert!(offset_of!(FlowHot, vsid) == 24 && offset_of!(FlowHot, packets) == 32);
    assert!(offset_of!(FlowHot, gen_src) == 48 && offset_of!(FlowHot, pending) == 62);
    assert!(offset_of!(FlowCold, rules) == 24 && offset_of!(FlowCold, created) == 56);
};

impl FlowKey {
    /// The key as eight little-endian words, the form that is hashed.
    #[inline(always)]
    pub fn words(&self) -> [u64; 8] {
        zerocopy::transmute!(*self)
    }

    /// Encapsulation of an inbound packet, or `None`.
    pub fn encap(&self) -> Option<Encap> {
        match self.encap {
            1 => Some(Encap::Vxlan),
            2 => Some(Encap::Nvgre),
            _ => None,
        }
    }

    /// Direction, or `None` for an unused record.
    pub fn direction(&self) -> Option<Direction> {
        match self.direction {
            1 => Some(Direction::Outbound),
            2 => Some(Direction::Inbound),
            _ => None,
        }
    }
}

impl core::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use culvert_packet::MacAddr;
        write!(f, "{:?} ", self.direction())?;
        match self.direction() {
            Some(Direction::Inbound) => write!(f, "pa#{} vsid {}", self.source, self.vsid)?,
            _ => write!(f, "vport {}", self.source)?,
        }
        write!(f, " {} > {}", MacAddr(self.src_mac), MacAddr(self.dst_mac))?;
        if self.vlan != 0 {
            write!(f, " vlan {}", self.vlan & 0xfff)?;
        }
        match self.family {
            4 => {
                let v4 = |a: &[u8; 16]| core::net::Ipv4Addr::new(a[0], a[1], a[2], a[3]);
                write!(f, " {}:{} > {}:{}", v4(&self.src), self.src_port, v4(&self.dst), self.dst_port)?;
            }
            6 => {
                let v6 = core::net::Ipv6Addr::from;
                write!(f, " [{}]:{} > [{}]:{}", v6(self.src), self.src_port, v6(self.dst), self.dst_port)?;
            }
            _ => write!(f, " ethertype {:#06x}", self.dst_port)?,
        }
        write!(f, " protocol {} fragment {}", self.protocol, self.fragment)
    }
}

impl FlowHot {
    /// The actions. Bits that are not defined are ignored.
    #[inline(always)]
    pub fn actions(&self) -> Actions {
        Actions::from_bits_truncate(self.actions)
    }

    /// Where the packet leaves.
    #[inline(always)]
    pub fn out(&self) -> Port {
        Port::from_bits(self.out)
    }

    /// The hot part of a record that drops, with its reason.
    pub fn drop(reason: Reason) -> Self {
        FlowHot { actions: Actions::DROP.bits(), nat_port: reason as u16, ..Self::default() }
    }

    /// Why a dropping record drops.
    pub fn drop_reason(&self) -> Reason {
        Reason::from_u8(self.nat_port as u8).unwrap_or(Reason::BadDescriptor)
    }
}
