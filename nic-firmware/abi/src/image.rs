//! Header of a firmware image: what the board checks before it lets the processor run.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of an image: "CVFW".
pub const MAGIC: u32 = u32::from_le_bytes(*b"CVFW");
/// Longest image, header included.
pub const MAX_LEN: u32 = 4 << 20;

/// In front of the flat image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`](crate::VERSION) that it was built for.
    pub abi: u32,
    /// Where it is loaded: an address of the SoC.
    pub load: u64,
    /// Where it starts.
    pub entry: u64,
    /// Bytes that follow this header.
    pub len: u32,
    /// CRC-32 (IEEE 802.3) of those bytes.
    pub crc: u32,
}

const _: () = assert!(size_of::<Header>() == 32);

/// Why an image is refused. The numbers appear in the board's firmware error register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ImageError {
    /// Shorter than its header says, or longer than allowed.
    Length = 1,
    /// Not a firmware image.
    Magic = 2,
    /// Built for another version of the interface.
    Abi = 3,
    /// Does not lie in the SoC's image area.
    Address = 4,
    /// The checksum is wrong: the image was damaged.
    Crc = 5,
}

impl Header {
    /// Splits an image into header and flat part and checks all but the CRC, which the caller computes over the part
    /// that is returned and compares with `crc`.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn parse(image: &[u8]) -> Result<(Header, &[u8]), ImageError> {
        let (header, flat) = Header::read_from_prefix(image).map_err(|_| ImageError::Length)?;
        if header.magic != MAGIC {
            return Err(ImageError::Magic);
        }
        if header.abi != crate::VERSION {
            return Err(ImageError::Abi);
        }
        if image.len() > MAX_LEN as usize || flat.len() < header.len as usize {
            return Err(ImageError::Length);
        }
        let area = crate::soc::RAM_BASE..crate::soc::RAM_BASE + crate::soc::IMAGE_LEN;
        let end = header.load.checked_add(u64::from(header.len)).ok_or(ImageError::Address)?;
        if !area.contains(&header.load) || end > area.end || !(header.load..end).contains(&header.entry) {
            return Err(ImageError::Address);
        }
        Ok((header, &flat[..header.len as usize]))
    }
}
