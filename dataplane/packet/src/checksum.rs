//! The Internet checksum: RFC 1071, with the incremental update of RFC 1624.
//!
//! A *sum* is the ones' complement sum of big-endian 16-bit words, folded to 16 bits; a *checksum* is its complement, as
//! it stands in a header.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ip::Protocol;

/// Folds a sum of 16-bit or 32-bit words to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// Sum of bytes; an odd last byte counts as if a zero followed.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    // Words are added in the processor's byte order, which only swaps the bytes of the result (RFC 1071 section 2 B).
    // Halves of 64 bits cannot overflow for any length that a packet can have.
    let mut total = 0u64;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut four = [0; 4];
        four.copy_from_slice(word);
        total += u64::from(u32::from_ne_bytes(four));
    }
    let rest = words.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(total))
}

/// Checksum of bytes.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// Whether the checksum of an IPv4 header without options is right.
#[inline(always)]
pub fn header_is_valid(header: &[u8; 20]) -> bool {
    let mut total = 0u64;
    let (words, _) = header.as_chunks::<4>();
    for &word in words {
        total += u64::from(u32::from_ne_bytes(word));
    }
    // Five words are 35 bits at most, for which three steps are enough. All ones are the same in either byte order.
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    (total >> 16) + (total & 0xffff) == 0xffff
}

/// Ones' complement sum of two sums.
#[inline(always)]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// The checksum after a 16-bit word of what it covers has changed: RFC 1624 equation 3, HC' = ~(~HC + ~m + m').
#[inline(always)]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + sum) as u16
}

/// The checksum after a 32-bit word, aligned to 16 bits, has changed.
#[inline(always)]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let sum = !checksum as u64 + !old as u64 + new as u64;
    !fold(sum)
}

/// The checksum after bytes, aligned to 16 bits, have changed. Both slices have the same, even, length.
#[inline]
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let change = u64::from(!sum(old)) + u64::from(sum(new));
    !fold(u64::from(!checksum) + change)
}

/// Sums pieces: pseudo-header, header, payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum {
    sum: u64,
    odd: bool,
}

impl Checksum {
    /// Nothing yet.
    pub const fn new() -> Self {
        Checksum { sum: 0, odd: false }
    }

    /// Adds bytes. Pieces may have odd lengths.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let piece = sum(bytes);
        self.sum += u64::from(if self.odd { piece.swap_bytes() } else { piece });
        self.odd ^= bytes.len() % 2 == 1;
        self
    }

    /// Adds a 16-bit word.
    pub fn word(&mut self, word: u16) -> &mut Self {
        self.bytes(&word.to_be_bytes())
    }

    /// Adds a pseudo-header: addresses of 4 or 16 bytes, protocol, length of the transport header and payload.
    pub fn pseudo(&mut self, src: &[u8], dst: &[u8], protocol: Protocol, length: u32) -> &mut Self {
        self.bytes(src).bytes(dst).bytes(&length.to_be_bytes()).word(u16::from(protocol.0))
    }

    /// Adds the pseudo-header of IPv4 (RFC 9293 section 3.1).
    pub fn pseudo_v4(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: Protocol, length: u16) -> &mut Self {
        self.pseudo(&src.octets(), &dst.octets(), protocol, u32::from(length))
    }

    /// Adds the pseudo-header of IPv6 (RFC 8200 section 8.1).
    pub fn pseudo_v6(&mut self, src: Ipv6Addr, dst: Ipv6Addr, protocol: Protocol, length: u32) -> &mut Self {
        self.pseudo(&src.octets(), &dst.octets(), protocol, length)
    }

    /// Adds the pseudo-header of either family. The result for a mixed pair has no meaning.
    pub fn pseudo_ip(&mut self, src: IpAddr, dst: IpAddr, protocol: Protocol, length: u32) -> &mut Self {
        for address in [src, dst] {
            match address {
                IpAddr::V4(a) => self.bytes(&a.octets()),
                IpAddr::V6(a) => self.bytes(&a.octets()),
            };
        }
        self.bytes(&length.to_be_bytes()).word(u16::from(protocol.0))
    }

    /// The sum.
    pub const fn sum(&self) -> u16 {
        fold(self.sum)
    }

    /// The checksum; 0 if what was added contains its own, right, checksum.
    pub const fn finish(&self) -> u16 {
        !self.sum()
    }
}
