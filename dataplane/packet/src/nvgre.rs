//! NVGRE (RFC 7637 section 3.2): GRE (RFC 2784, key by RFC 2890) that carries Ethernet.

use crate::bytes::be32;
use crate::ethernet::EtherType;
use crate::id::Vni;
use crate::reason::Reason;

/// Bytes of the header: flags, protocol, key.
pub const HEADER_LEN: usize = 8;

const FLAG_K: u32 = 0x2000_0000;
// RFC 7637 section 3.2: no checksum, no sequence number.
// RFC 2784 section 2.3: a receiver refuses packets with any of bits 1 to 5 set.
const FLAGS_REFUSED: u32 = 0xdc00_0000;
const VERSION: u32 = 0x0007_0000;
/// First word of a header that is sent: the key flag alone, version 0, Ethernet.
pub const FIRST_WORD: u32 = FLAG_K | EtherType::TRANSPARENT_ETHERNET.0 as u32;
/// The bits that a received first word must have in common with [`FIRST_WORD`].
// RFC 2784 section 2.3: a receiver ignores bits 6 to 12.
pub const FIRST_WORD_MASK: u32 = FLAGS_REFUSED | FLAG_K | VERSION | 0xffff;

/// Whether the first word of a GRE header is NVGRE's.
#[inline(always)]
pub(crate) const fn is_nvgre(first_word: u32) -> bool {
    first_word & FIRST_WORD_MASK == FIRST_WORD
}

/// An NVGRE header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Upper 24 bits of the key. Not yet checked to be a [`Vsid`](crate::Vsid).
    pub vsid: Vni,
    /// Lower eight bits: tells flows apart, for the underlay's load balancing.
    pub flow_id: u8,
}

impl Header {
    /// Reads the header behind IP; returns it and the inner frame.
    ///
    /// # Errors
    /// `OuterTruncated`, `GreVersion`, `GreFlags`, `GreNoKey` or `GreProtocol`.
    pub fn parse(bytes: &[u8]) -> Result<(Header, &[u8]), Reason> {
        let word = u32::from_be_bytes(*bytes.first_chunk().ok_or(Reason::OuterTruncated)?);
        if word & VERSION != 0 {
            return Err(Reason::GreVersion);
        }
        if word & FLAGS_REFUSED != 0 {
            return Err(Reason::GreFlags);
        }
        if word & FLAG_K == 0 {
            return Err(Reason::GreNoKey);
        }
        if word as u16 != EtherType::TRANSPARENT_ETHERNET.0 {
            return Err(Reason::GreProtocol);
        }
        let (header, inner) = bytes.split_at_checked(HEADER_LEN).ok_or(Reason::OuterTruncated)?;
        let key = be32(header, 4);
        let vsid = Vni::new(key >> 8).map_err(|_| Reason::OuterBadHeader)?;
        Ok((Header { vsid, flow_id: key as u8 }, inner))
    }

    /// Writes the header to the front of `out`; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Reason> {
        let out = out.first_chunk_mut::<HEADER_LEN>().ok_or(Reason::NoBuffer)?;
        let key = self.vsid.get() << 8 | u32::from(self.flow_id);
        out[..4].copy_from_slice(&FIRST_WORD.to_be_bytes());
        out[4..].copy_from_slice(&key.to_be_bytes());
        Ok(HEADER_LEN)
    }
}
