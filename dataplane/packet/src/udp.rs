//! UDP (RFC 768).

use core::net::IpAddr;

use crate::bytes::be16;
use crate::checksum::Checksum;
use crate::ip::Protocol;
use crate::reason::Reason;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// A UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Checksum; 0 for none.
    pub checksum: u16,
}

impl Header {
    /// Reads a header; returns it and the payload as long as the header says. The checksum is not verified: see
    /// [`verify`].
    ///
    /// # Errors
    /// `Truncated`, or `BadHeaderLength` for a length that the header itself does not fit in.
    pub fn parse(datagram: &[u8]) -> Result<(Header, &[u8]), Reason> {
        let header = datagram.first_chunk::<HEADER_LEN>().ok_or(Reason::Truncated)?;
        let length = usize::from(be16(header, 4));
        if length < HEADER_LEN {
            return Err(Reason::BadHeaderLength);
        }
        let payload = datagram.get(HEADER_LEN..length).ok_or(Reason::Truncated)?;
        let parsed =
            Header { src_port: be16(header, 0), dst_port: be16(header, 2), checksum: be16(header, 6) };
        Ok((parsed, payload))
    }

    /// Writes the header to the front of `datagram`, whose rest is the payload, with a checksum computed; returns its
    /// length. The field `checksum` is not looked at.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room. `TooLong`: the datagram is longer than UDP can say.
    pub fn emit(&self, src: IpAddr, dst: IpAddr, datagram: &mut [u8]) -> Result<usize, Reason> {
        let length = u16::try_from(datagram.len()).map_err(|_| Reason::TooLong)?;
        let out = datagram.first_chunk_mut::<HEADER_LEN>().ok_or(Reason::NoBuffer)?;
        out[..2].copy_from_slice(&self.src_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        out[4..6].copy_from_slice(&length.to_be_bytes());
        out[6..].fill(0);
        let mut sum = Checksum::new();
        let sum = sum.pseudo_ip(src, dst, Protocol::UDP, u32::from(length)).bytes(datagram).finish();
        datagram[6..8].copy_from_slice(&not_zero(sum).to_be_bytes());
        Ok(HEADER_LEN)
    }
}

/// A computed checksum as it is sent: 0 would mean that there is none.
pub const fn not_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Whether the checksum of a datagram is right, or absent where it may be: over IPv4.
pub fn verify(src: IpAddr, dst: IpAddr, datagram: &[u8]) -> bool {
    if datagram.len() < HEADER_LEN {
        return false;
    }
    if be16(datagram, 6) == 0 {
        return src.is_ipv4();
    }
    let length = datagram.len() as u32;
    Checksum::new().pseudo_ip(src, dst, Protocol::UDP, length).bytes(datagram).finish() == 0
}
