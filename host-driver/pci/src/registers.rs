//! `Registers`: typed, bounded access to a BAR; mapped where possible, by messages otherwise.

use crate::mapped::MappedArea;
use crate::{Error, Result};

/// The registers of a BAR.
///
/// Offsets are in bytes and must be aligned to the access. An access through messages costs 10 to 20 microseconds:
/// nothing per packet or burst may need one. Accesses fail with [`Error::OutOfRange`], or if the device is lost.
#[allow(clippy::missing_errors_doc, reason = "the trait's documentation names the errors of all accesses")]
pub trait Registers: Send + Sync {
    /// The size in bytes.
    fn size(&self) -> u64;
    /// Reads 8 bits.
    fn read8(&self, offset: u64) -> Result<u8>;
    /// Reads 16 bits.
    fn read16(&self, offset: u64) -> Result<u16>;
    /// Reads 32 bits.
    fn read32(&self, offset: u64) -> Result<u32>;
    /// Reads 64 bits.
    fn read64(&self, offset: u64) -> Result<u64>;
    /// Writes 8 bits.
    fn write8(&self, offset: u64, value: u8) -> Result<()>;
    /// Writes 16 bits.
    fn write16(&self, offset: u64, value: u16) -> Result<()>;
    /// Writes 32 bits.
    fn write32(&self, offset: u64, value: u32) -> Result<()>;
    /// Writes 64 bits.
    fn write64(&self, offset: u64, value: u64) -> Result<()>;
}

/// Access to the parts of a region that are not mapped.
pub(crate) trait Fallback: Send + Sync {
    /// The region's name, for error messages.
    fn thing(&self) -> String;
    /// Reads bytes.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()>;
    /// Writes bytes.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()>;
}

/// A region with mapped areas; its other parts are accessed through `fallback`.
pub(crate) struct Region<F> {
    pub(crate) size: u64,
    pub(crate) areas: Vec<(u64, MappedArea)>,
    pub(crate) fallback: F,
}

impl<F: Fallback> Region<F> {
    fn check(&self, offset: u64, len: u64) -> Result<()> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.size);
        if inside && offset.is_multiple_of(len) {
            return Ok(());
        }
        Err(Error::OutOfRange { thing: self.fallback.thing(), offset, len, size: self.size })
    }

    /// The mapped area that contains the whole access, and the offset in it.
    fn mapped(&self, offset: u64, len: u64) -> Option<(&MappedArea, usize)> {
        self.areas.iter().find_map(|(start, area)| {
            let inner = offset.checked_sub(*start)?;
            let inner = usize::try_from(inner).ok()?;
            (inner.checked_add(len as usize)? <= area.len()).then_some((area, inner))
        })
    }
}

macro_rules! accessors {
    ($read:ident, $write:ident, $ty:ty) => {
        fn $read(&self, offset: u64) -> Result<$ty> {
            const LEN: usize = size_of::<$ty>();
            self.check(offset, LEN as u64)?;
            if let Some((area, inner)) = self.mapped(offset, LEN as u64) {
                return Ok(area.$read(inner));
            }
            let mut data = [0; LEN];
            self.fallback.read(offset, &mut data)?;
            Ok(<$ty>::from_le_bytes(data))
        }

        fn $write(&self, offset: u64, value: $ty) -> Result<()> {
            const LEN: usize = size_of::<$ty>();
            self.check(offset, LEN as u64)?;
            if let Some((area, inner)) = self.mapped(offset, LEN as u64) {
                area.$write(inner, value);
                return Ok(());
            }
            self.fallback.write(offset, &value.to_le_bytes())
        }
    };
}

impl<F: Fallback> Registers for Region<F> {
    fn size(&self) -> u64 {
        self.size
    }

    accessors!(read8, write8, u8);
    accessors!(read16, write16, u16);
    accessors!(read32, write32, u32);
    accessors!(read64, write64, u64);
}
