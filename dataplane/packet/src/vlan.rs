//! 802.1Q tags.

use crate::ethernet::EtherType;
use crate::reason::Reason;

/// Bytes of a tag.
pub const TAG_LEN: usize = 4;

/// Tag control information: priority (3 bits), drop eligible, VLAN id (12 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tci(pub u16);

impl Tci {
    /// VLAN id; 0 if the tag gives only a priority.
    pub const fn vlan_id(self) -> u16 {
        self.0 & 0xfff
    }

    /// Priority code point.
    pub const fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }

    /// Drop eligible indicator.
    pub const fn drop_eligible(self) -> bool {
        self.0 & 0x1000 != 0
    }
}

/// What follows the EtherType [`EtherType::VLAN`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The tag.
    pub tci: Tci,
    /// What follows.
    pub ethertype: EtherType,
}

impl Header {
    /// Reads the tag behind an Ethernet header; returns it and what follows.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn parse(bytes: &[u8]) -> Result<(Header, &[u8]), Reason> {
        let (&[c0, c1, t0, t1], rest) = bytes.split_first_chunk().ok_or(Reason::Truncated)?;
        let header = Header {
            tci: Tci(u16::from_be_bytes([c0, c1])),
            ethertype: EtherType(u16::from_be_bytes([t0, t1])),
        };
        Ok((header, rest))
    }

    /// Writes the tag to the front of `out`; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Reason> {
        let out = out.first_chunk_mut::<TAG_LEN>().ok_or(Reason::NoBuffer)?;
        out[..2].copy_from_slice(&self.tci.0.to_be_bytes());
        out[2..].copy_from_slice(&self.ethertype.0.to_be_bytes());
        Ok(TAG_LEN)
    }
}
