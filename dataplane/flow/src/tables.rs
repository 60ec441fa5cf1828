//! Tables beside the flow table: tunnels, replication groups, provider addresses, vports, generation cells.

use core::mem::size_of;

use culvert_packet::Encap;
use culvert_packet::encap::{MAX_OUTER, Template};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::port::Port;

/// A tunnel to another host: its outer headers, except lengths, checksum, entropy and VSID. Flows hold its index, so that
/// a new next hop changes one tunnel and not every flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Tunnel {
    /// 0: not in use. 1: VXLAN. 2: NVGRE.
    pub encap: u8,
    /// The MAC port it leaves by.
    pub uplink: u8,
    /// Bytes of `header` in use.
    pub header_len: u8,
    /// Offset of the outer IP header in `header`.
    pub ip_offset: u8,
    /// Longest inner frame, Ethernet header included, that fits the PA network's MTU.
    pub max_inner: u16,
    /// Ones' complement sum of the outer IPv4 header without length and checksum; 0 for IPv6.
    pub ip_sum: u16,
    /// The outer headers, first byte of Ethernet first.
    pub header: [u8; MAX_OUTER],
    /// Wire packets sent.
    pub packets: u64,
    /// Inner bytes sent.
    pub bytes: u64,
    /// Reserved; 0.
    pub reserved: u64,
}

impl Default for Tunnel {
    fn default() -> Self {
        <Self as zerocopy::FromZeros>::new_zeroed()
    }
}

impl Tunnel {
    /// A tunnel with these outer headers. `max_inner` is the longest inner frame that it takes.
    pub fn new(template: &Template, uplink: u8, max_inner: u16) -> Self {
        Tunnel {
            encap: template.encap as u8,
            uplink,
            header_len: template.len,
            ip_offset: template.ip_offset,
            max_inner,
            ip_sum: template.ip_sum,
            header: template.bytes,
            ..Tunnel::default()
        }
    }

    /// Replaces everything but the counters.
    pub fn rewrite(&mut self, new: &Tunnel) {
        *self = Tunnel { packets: self.packets, bytes: self.bytes, ..*new };
    }

    /// Counts a packet with an inner frame of `inner_len` bytes.
    #[inline(always)]
    pub(crate) fn count(&mut self, inner_len: usize) {
        self.packets += 1;
        self.bytes += inner_len as u64;
    }

    /// Its encapsulation, or `None` when the entry is not in use.
    #[inline(always)]
    pub fn encap(&self) -> Option<Encap> {
        match self.encap {
            1 => Some(Encap::Vxlan),
            2 => Some(Encap::Nvgre),
            _ => None,
        }
    }
}

/// The most members that a replication group can have.
pub const GROUP_MEMBERS: usize = 60;

/// A replication group: a broadcast goes to each remote host that has the subnet, and to each local vport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Group {
    /// Members in use.
    pub len: u16,
    /// 0, for alignment.
    pub reserved: [u16; 3],
    /// [`Member`] as bits.
    pub members: [u16; GROUP_MEMBERS],
}

impl Default for Group {
    fn default() -> Self {
        Group { len: 0, reserved: [0; 3], members: [0; GROUP_MEMBERS] }
    }
}

/// One destination of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Member {
    /// A copy through this tunnel.
    Tunnel(u16),
    /// A copy to this port.
    Port(Port),
}

impl Member {
    const TUNNEL: u16 = 0x8000;

    /// As 16 bits: a tunnel index with bit 15 set, or a vport.
    pub fn bits(self) -> u16 {
        match self {
            Member::Tunnel(index) => Self::TUNNEL | index,
            Member::Port(port) => port.bits() & !Self::TUNNEL,
        }
    }

    /// From 16 bits.
    pub fn from_bits(bits: u16) -> Self {
        if bits & Self::TUNNEL != 0 {
            Member::Tunnel(bits & !Self::TUNNEL)
        } else {
            Member::Port(Port::from_bits(bits))
        }
    }
}

/// A provider address of another host, and the index that flow keys name it by. Both addresses of a host with two
/// have the same index, so that its flows survive when one uplink takes over from the other.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Peer {
    /// The address; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// 0: free. 4 or 6.
    pub family: u16,
    /// The index.
    pub index: u16,
    /// 0, for alignment.
    pub reserved: u32,
}

/// A vport as the data path sees it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Vport {
    /// Bit 0: in use. Bit 1: up.
    pub flags: u16,
    /// What serves it: 0 a VF, 1 a VMQ of the PF, 2 a port of the switch.
    pub target: u16,
    /// Number of that VF or VMQ.
    pub number: u16,
    /// 0, for alignment.
    pub reserved: u16,
    /// Its VSID.
    pub vsid: u32,
    /// Generation of its policy.
    pub generation: u32,
    /// Records that it owns.
    pub records: u32,
    /// Records that it may own.
    pub quota: u32,
    /// Frames from it.
    pub rx_packets: u64,
    /// Bytes from it.
    pub rx_bytes: u64,
    /// Frames to it.
    pub tx_packets: u64,
    /// Bytes to it.
    pub tx_bytes: u64,
    /// Its frames that were dropped.
    pub drops: u64,
}

impl Vport {
    /// `flags` bit: the entry is in use.
    pub const PRESENT: u16 = 1;
    /// `flags` bit: frames may pass.
    pub const UP: u16 = 2;
    /// `target`: a VF.
    pub const VF: u16 = 0;
    /// `target`: a VMQ.
    pub const VMQ: u16 = 1;
    /// `target`: a port of the switch.
    pub const SOFTWARE: u16 = 2;

    /// Replaces everything but the records and counters.
    pub fn rewrite(&mut self, new: &Vport) {
        let Vport { records, rx_packets, rx_bytes, tx_packets, tx_bytes, drops, .. } = *self;
        *self = Vport { records, rx_packets, rx_bytes, tx_packets, tx_bytes, drops, ..*new };
    }

    /// Adds the records and frames of the same vport in another data path.
    pub fn add(&mut self, other: &Vport) {
        self.records += other.records;
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.drops += other.drops;
    }

    /// Whether frames may pass.
    #[inline(always)]
    pub fn is_up(&self) -> bool {
        self.flags & (Self::PRESENT | Self::UP) == Self::PRESENT | Self::UP
    }
}

/// How many mapping cells there are.
pub const MAP_CELLS: usize = 1 << 16;

const _: () = {
    assert!(size_of::<Tunnel>() == 128);
    assert!(size_of::<Group>() == 128);
    assert!(size_of::<Peer>() == 24);
    assert!(size_of::<Vport>() == 64);
};

/// The provider addresses of this host and of its peers, in memory that the caller provides.
pub struct Peers<'m> {
    slots: &'m mut [Peer],
    local: [Peer; 4],
}

impl<'m> Peers<'m> {
    /// An empty set. `slots` should have twice as many entries, a power of two, as there will be addresses.
    pub fn new(slots: &'m mut [Peer]) -> Self {
        slots.fill(Peer::default());
        Peers { slots, local: [Peer::default(); 4] }
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    #[inline(always)]
    fn start(&self, addr: &[u8; 16]) -> usize {
        let [a, b]: [u64; 2] = zerocopy::transmute!(*addr);
        let h = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (h >> 40) as usize & (self.slots.len().wrapping_sub(1))
    }

    /// Index of a peer.
    #[inline(always)]
    pub fn index(&self, family: u16, addr: &[u8; 16]) -> Option<u16> {
        let mut at = self.start(addr);
        for _ in 0..self.slots.len() {
            let slot = self.slots.get(at)?;
            if slot.family == 0 {
                return None;
            }
            if slot.addr == *addr && slot.family == family {
                return Some(slot.index);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    /// Adds an address, or gives it another index. `false`: there is no room, or the entry has no family.
    pub fn set(&mut self, peer: Peer) -> bool {
        if peer.family == 0 || !self.slots.len().is_power_of_two() {
            return false;
        }
        let mut at = self.start(&peer.addr);
        for _ in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if slot.family == 0 || (slot.addr == peer.addr && slot.family == peer.family) {
                *slot = peer;
                return true;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        false
    }

    /// Removes all peers.
    pub fn clear(&mut self) {
        self.slots.fill(Peer::default());
    }

    /// Sets own address number `n` of four; family 0 takes it away. `false`: there is no such number.
    pub fn set_local(&mut self, n: usize, local: Peer) -> bool {
        self.local.get_mut(n).map(|slot| *slot = local).is_some()
    }

    /// Whether an address is one of our own.
    #[inline(always)]
    pub fn is_local(&self, family: u16, addr: &[u8; 16]) -> bool {
        self.local.iter().any(|l| l.addr == *addr && l.family == family)
    }
}
