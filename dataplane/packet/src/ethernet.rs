//! Ethernet II.

use crate::id::MacAddr;
use crate::reason::Reason;

/// What follows an Ethernet header or VLAN tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: EtherType = EtherType(0x0800);
    /// ARP.
    pub const ARP: EtherType = EtherType(0x0806);
    /// Ethernet in GRE (RFC 7637 section 3.2).
    pub const TRANSPARENT_ETHERNET: EtherType = EtherType(0x6558);
    /// 802.1Q tag.
    pub const VLAN: EtherType = EtherType(0x8100);
    /// IPv6.
    pub const IPV6: EtherType = EtherType(0x86dd);
    /// 802.1ad tag.
    pub const SERVICE_VLAN: EtherType = EtherType(0x88a8);
    /// Tag of the time before 802.1ad.
    pub const OLD_SERVICE_VLAN: EtherType = EtherType(0x9100);
}

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// What follows.
    pub ethertype: EtherType,
}

impl Header {
    /// Reads a header; returns it and what follows.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn parse(frame: &[u8]) -> Result<(Header, &[u8]), Reason> {
        let (&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1], rest) =
            frame.split_first_chunk::<HEADER_LEN>().ok_or(Reason::Truncated)?;
        let header = Header {
            dst: MacAddr([d0, d1, d2, d3, d4, d5]),
            src: MacAddr([s0, s1, s2, s3, s4, s5]),
            ethertype: EtherType(u16::from_be_bytes([t0, t1])),
        };
        Ok((header, rest))
    }

    /// Writes the header to the front of `out`; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Reason> {
        let out = out.first_chunk_mut::<HEADER_LEN>().ok_or(Reason::NoBuffer)?;
        out[..6].copy_from_slice(&self.dst.0);
        out[6..12].copy_from_slice(&self.src.0);
        out[12..].copy_from_slice(&self.ethertype.0.to_be_bytes());
        Ok(HEADER_LEN)
    }
}
