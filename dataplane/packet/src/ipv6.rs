//! IPv6 and its extension headers (RFC 8200).

use core::net::Ipv6Addr;

use crate::bytes::{array, be16, be32};
use crate::ip::Protocol;
use crate::reason::Reason;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Extension headers that are walked at most; no real packet has as many.
pub const MAX_EXTENSIONS: usize = 8;

/// The fixed header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// What follows: an extension header or the transport protocol.
    pub next_header: Protocol,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Bytes behind the header, extension headers included.
    pub payload_len: u16,
}

impl Header {
    /// Reads the fixed header; returns it and its payload, without padding.
    ///
    /// # Errors
    /// `Truncated` or `BadVersion`.
    pub fn parse(packet: &[u8]) -> Result<(Header, &[u8]), Reason> {
        if packet.first().is_some_and(|b| b >> 4 != 6) {
            return Err(Reason::BadVersion);
        }
        let (header, rest) = packet.split_first_chunk::<HEADER_LEN>().ok_or(Reason::Truncated)?;
        let word = be32(header, 0);
        let payload_len = be16(header, 4);
        let payload = rest.get(..usize::from(payload_len)).ok_or(Reason::Truncated)?;
        let parsed = Header {
            traffic_class: (word >> 20) as u8,
            flow_label: word & 0xf_ffff,
            next_header: Protocol(header[6]),
            hop_limit: header[7],
            src: Ipv6Addr::from(array::<16>(header, 8)),
            dst: Ipv6Addr::from(array::<16>(header, 24)),
            payload_len,
        };
        Ok((parsed, payload))
    }

    /// Writes the header to the front of `out`; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Reason> {
        let out = out.first_chunk_mut::<HEADER_LEN>().ok_or(Reason::NoBuffer)?;
        let word = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
        out[..4].copy_from_slice(&word.to_be_bytes());
        out[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        out[6] = self.next_header.0;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.src.octets());
        out[24..].copy_from_slice(&self.dst.octets());
        Ok(HEADER_LEN)
    }
}

/// What a fragment header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Offset in units of eight bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Identification of the packet that it belongs to.
    pub id: u32,
}

/// What [`walk`] finds behind the fixed header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extensions {
    /// The protocol behind them. Of a later fragment: what its fragment header names.
    pub protocol: Protocol,
    /// Their length.
    pub length: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
}

/// Walks the extension headers at the front of `payload`. Behind a fragment header that is not the first fragment's
/// there are none, since what follows is data.
///
/// # Errors
/// `Truncated`; `Unsupported` for more than [`MAX_EXTENSIONS`]; `BadHeaderLength` for a second fragment header.
pub fn walk(payload: &[u8], next_header: u8) -> Result<Extensions, Reason> {
    let mut found = Extensions { protocol: Protocol(next_header), length: 0, fragment: None };
    for _ in 0..=MAX_EXTENSIONS {
        let units = match found.protocol {
            Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::DESTINATION_OPTIONS => 8,
            Protocol::AUTHENTICATION => 4,
            Protocol::FRAGMENT => 0,
            _ => return Ok(found),
        };
        let header = payload.get(found.length..).unwrap_or_default();
        let &[next, length, ..] = header.first_chunk::<8>().ok_or(Reason::Truncated)?;
        let bytes = match units {
            8 => 8 + usize::from(length) * 8,
            // RFC 4302 section 2.2: in units of four bytes, minus two.
            4 => 8 + usize::from(length) * 4,
            _ => 8,
        };
        if header.len() < bytes {
            return Err(Reason::Truncated);
        }
        let was_fragment = found.protocol == Protocol::FRAGMENT;
        found.protocol = Protocol(next);
        found.length += bytes;
        if was_fragment {
            if found.fragment.is_some() {
                return Err(Reason::BadHeaderLength);
            }
            let word = be16(header, 2);
            let fragment = Fragment { offset: word >> 3, more: word & 1 != 0, id: be32(header, 4) };
            found.fragment = Some(fragment);
            if fragment.offset != 0 {
                return Ok(found);
            }
        }
    }
    Err(Reason::Unsupported)
}

/// Solicited-node multicast address of an address (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}
