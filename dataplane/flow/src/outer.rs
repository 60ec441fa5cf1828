//! Checks of outer headers: whether an encapsulated packet is for this host, and from which peer it comes.

use culvert_packet::{Outer, Reason, parse_outer, verify_udp};

use crate::tables::Peers;

/// What is known of a packet's checksum before the data path sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// Not verified.
    #[default]
    Unknown,
    /// The outer UDP checksum, or the checksum of a frame without outer headers, is right.
    Good,
    /// It is wrong.
    Bad,
}

impl Checksum {
    /// Verifies the outer UDP checksum of a frame from the wire in software, for engines whose hardware does not.
    /// `Unknown`: the frame has none.
    pub fn verify_outer(frame: &[u8]) -> Self {
        match parse_outer(frame) {
            // RFC 7348 section 5: a checksum that is not zero must be right.
            Ok(Some(outer)) if outer.udp_checksum != 0 => {
                if verify_udp(frame, &outer) {
                    Checksum::Good
                } else {
                    Checksum::Bad
                }
            }
            _ => Checksum::Unknown,
        }
    }
}

/// The outer header of a packet from the wire; all zero for a frame of a vport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OuterInfo {
    /// Offset of the inner frame: bytes of outer headers.
    pub inner: u16,
    /// Length of the inner frame; padding may follow it.
    pub inner_len: u16,
    /// Index of the peer that sent the packet.
    pub peer: u16,
    /// VSID.
    pub vsid: u32,
    /// ECN bits of the outer IP header.
    pub ecn: u8,
}

/// The provider addresses that outer headers are checked against.
pub trait ProviderAddresses {
    /// Whether an address is one of this host.
    fn is_local(&self, family: u16, addr: &[u8; 16]) -> bool;

    /// Index of the peer that has an address.
    fn peer(&self, family: u16, addr: &[u8; 16]) -> Option<u16>;
}

impl ProviderAddresses for Peers<'_> {
    #[inline(always)]
    fn is_local(&self, family: u16, addr: &[u8; 16]) -> bool {
        Peers::is_local(self, family, addr)
    }

    #[inline(always)]
    fn peer(&self, family: u16, addr: &[u8; 16]) -> Option<u16> {
        self.index(family, addr)
    }
}

/// Index of the peer that sent a packet with these outer headers, if the packet is acceptable.
///
/// # Errors
/// Why the packet is dropped: its outer UDP checksum is wrong, its destination is not a provider address of this host,
/// or its source is not one of a peer.
#[inline(always)]
pub fn accept_outer(
    addresses: &impl ProviderAddresses,
    outer: &Outer,
    checksum: Checksum,
) -> Result<u16, Reason> {
    if checksum == Checksum::Bad && outer.udp_checksum != 0 {
        return Err(Reason::OuterUdpChecksum);
    }
    let family = u16::from(outer.family);
    if !addresses.is_local(family, &outer.dst) {
        return Err(Reason::OuterNotOurs);
    }
    addresses.peer(family, &outer.src).ok_or(Reason::UnknownSourcePa)
}
