//! TCP (RFC 9293).

use core::net::IpAddr;
use core::ops::BitOr;

use crate::bytes::{be16, be32};
use crate::checksum::Checksum;
use crate::ip::Protocol;
use crate::reason::Reason;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Control bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer counts.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo.
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced.
    pub const CWR: Flags = Flags(0x80);

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether one of `other` is set.
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it opens, closes or resets a connection.
    pub const fn is_control(self) -> bool {
        self.0 & (Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0) != 0
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A TCP header. Options are not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
}

impl Header {
    /// Reads a header with its options; returns it and the payload. The checksum is not verified: see [`verify`].
    ///
    /// # Errors
    /// `Truncated` or `BadHeaderLength`.
    pub fn parse(segment: &[u8]) -> Result<(Header, &[u8]), Reason> {
        let header = segment.first_chunk::<HEADER_LEN>().ok_or(Reason::Truncated)?;
        let length = usize::from(header[12] >> 4) * 4;
        if length < HEADER_LEN {
            return Err(Reason::BadHeaderLength);
        }
        let payload = segment.get(length..).ok_or(Reason::Truncated)?;
        let parsed = Header {
            src_port: be16(header, 0),
            dst_port: be16(header, 2),
            sequence: be32(header, 4),
            acknowledgment: be32(header, 8),
            flags: Flags(header[13]),
            window: be16(header, 14),
            urgent: be16(header, 18),
        };
        Ok((parsed, payload))
    }

    /// Writes a header without options to the front of `segment`, whose rest is the payload, with its checksum; returns
    /// the header's length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, src: IpAddr, dst: IpAddr, segment: &mut [u8]) -> Result<usize, Reason> {
        let out = segment.first_chunk_mut::<HEADER_LEN>().ok_or(Reason::NoBuffer)?;
        out[..2].copy_from_slice(&self.src_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        out[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        out[8..12].copy_from_slice(&self.acknowledgment.to_be_bytes());
        out[12] = 5 << 4;
        out[13] = self.flags.0;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..18].fill(0);
        out[18..].copy_from_slice(&self.urgent.to_be_bytes());
        let length = segment.len() as u32;
        let sum = Checksum::new().pseudo_ip(src, dst, Protocol::TCP, length).bytes(segment).finish();
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        Ok(HEADER_LEN)
    }
}

/// Whether the checksum of a segment is right.
pub fn verify(src: IpAddr, dst: IpAddr, segment: &[u8]) -> bool {
    let length = segment.len() as u32;
    Checksum::new().pseudo_ip(src, dst, Protocol::TCP, length).bytes(segment).finish() == 0
}
