//! VXLAN (RFC 7348 section 5).

use crate::bytes::be32;
use crate::id::Vni;
use crate::reason::Reason;

/// UDP destination port.
pub const PORT: u16 = 4789;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// Flag in the first byte: the VNI is valid.
// RFC 7348 section 5: all other bits are reserved, zero when sent, ignored when received.
pub const FLAG_I: u8 = 0x08;

/// A VXLAN header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The network.
    pub vni: Vni,
}

impl Header {
    /// Reads the header behind UDP; returns it and the inner frame.
    ///
    /// # Errors
    /// `OuterTruncated` or `VxlanNoIFlag`.
    pub fn parse(bytes: &[u8]) -> Result<(Header, &[u8]), Reason> {
        let (header, inner) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Reason::OuterTruncated)?;
        if header[0] & FLAG_I == 0 {
            return Err(Reason::VxlanNoIFlag);
        }
        let vni = Vni::new(be32(header, 4) >> 8).map_err(|_| Reason::OuterBadHeader)?;
        Ok((Header { vni }, inner))
    }

    /// Writes the header to the front of `out`; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Reason> {
        let out = out.first_chunk_mut::<HEADER_LEN>().ok_or(Reason::NoBuffer)?;
        out[..4].copy_from_slice(&[FLAG_I, 0, 0, 0]);
        out[4..].copy_from_slice(&(self.vni.get() << 8).to_be_bytes());
        Ok(HEADER_LEN)
    }
}
