//! IPv4 (RFC 791).

use core::net::Ipv4Addr;

use crate::bytes::{array, be16};
use crate::checksum;
use crate::ip::Protocol;
use crate::reason::Reason;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// An IPv4 header. Options are not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Identification of the packet that a fragment belongs to.
    pub id: u16,
    /// Fragmentation on the way is forbidden.
    pub dont_fragment: bool,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Offset of a fragment, in units of eight bytes.
    pub fragment_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: Protocol,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Bytes behind the header: not more than the packet's length says.
    pub payload_len: u16,
}

impl Header {
    /// Reads a header with its options and verifies its checksum; returns it and its payload, without padding.
    ///
    /// # Errors
    /// `Truncated`, `BadVersion`, `BadHeaderLength` or `BadIpChecksum`.
    pub fn parse(packet: &[u8]) -> Result<(Header, &[u8]), Reason> {
        let first = packet.first().copied().ok_or(Reason::Truncated)?;
        if first >> 4 != 4 {
            return Err(Reason::BadVersion);
        }
        let header_len = usize::from(first & 0xf) * 4;
        if header_len < HEADER_LEN {
            return Err(Reason::BadHeaderLength);
        }
        let header = packet.get(..header_len).ok_or(Reason::Truncated)?;
        let total = usize::from(be16(header, 2));
        if total < header_len {
            return Err(Reason::BadHeaderLength);
        }
        let payload = packet.get(header_len..total).ok_or(Reason::Truncated)?;
        if checksum::sum(header) != 0xffff {
            return Err(Reason::BadIpChecksum);
        }
        let word = be16(header, 6);
        let parsed = Header {
            tos: header[1],
            id: be16(header, 4),
            dont_fragment: word & 0x4000 != 0,
            more_fragments: word & 0x2000 != 0,
            fragment_offset: word & 0x1fff,
            ttl: header[8],
            protocol: Protocol(header[9]),
            src: Ipv4Addr::from(array::<4>(header, 12)),
            dst: Ipv4Addr::from(array::<4>(header, 16)),
            payload_len: payload.len() as u16,
        };
        Ok((parsed, payload))
    }

    /// Whether the packet is a part of one.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// Writes a header without options, with its checksum, to the front of `out`; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room. `TooLong`: the packet would be longer than IPv4 can say.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Reason> {
        let out = out.first_chunk_mut::<HEADER_LEN>().ok_or(Reason::NoBuffer)?;
        let total = self.payload_len.checked_add(HEADER_LEN as u16).ok_or(Reason::TooLong)?;
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;
        let word = flags | self.fragment_offset & 0x1fff;
        out[0] = 0x45;
        out[1] = self.tos;
        out[2..4].copy_from_slice(&total.to_be_bytes());
        out[4..6].copy_from_slice(&self.id.to_be_bytes());
        out[6..8].copy_from_slice(&word.to_be_bytes());
        out[8] = self.ttl;
        out[9] = self.protocol.0;
        out[10..12].fill(0);
        out[12..16].copy_from_slice(&self.src.octets());
        out[16..].copy_from_slice(&self.dst.octets());
        let sum = checksum::of(out);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        Ok(HEADER_LEN)
    }
}
