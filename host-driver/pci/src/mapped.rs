//! `MappedArea`: a memory-mapped part of a BAR, with volatile accesses of exactly the requested width.

use std::fs::File;

use mmap_rs::{MmapFlags, MmapMut, MmapOptions};
use volatile_register::RW;

use crate::{Error, Result};

/// A part of a BAR that is mapped into this process.
pub(crate) struct MappedArea {
    /// Keeps the mapping alive.
    _map: MmapMut,
    base: *mut u8,
    len: usize,
}

// SAFETY: the pointer is to a shared mapping that lives as long as `_map`, and is used only for volatile accesses,
// which the hardware orders; the value has no other state.
unsafe impl Send for MappedArea {}
// SAFETY: as above.
unsafe impl Sync for MappedArea {}

macro_rules! volatile {
    ($read:ident, $write:ident, $ty:ty) => {
        pub(crate) fn $read(&self, offset: usize) -> $ty {
            self.register::<$ty>(offset).read()
        }

        pub(crate) fn $write(&self, offset: usize, value: $ty) {
            // SAFETY: a register's side effects are the device's; they reach only its DMA memory, which this process
            // accesses only atomically.
            unsafe { self.register::<$ty>(offset).write(value) }
        }
    };
}

impl MappedArea {
    /// Maps `len` bytes of the device's file at `offset`, which must be a multiple of the page size.
    pub(crate) fn new(file: &File, offset: u64, len: usize) -> Result<Self> {
        let failed = |e: mmap_rs::Error| Error::system(format!("mapping {len:#x} bytes of a BAR"), io(&e));
        let options = MmapOptions::new(len).map_err(failed)?.with_flags(MmapFlags::SHARED);
        // SAFETY: the mapping is shared with the device on purpose and only accessed volatilely.
        let mut map = unsafe { options.with_file(file, offset) }.map_mut().map_err(failed)?;
        Ok(Self { base: map.as_mut_ptr(), len, _map: map })
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn register<T: Copy>(&self, offset: usize) -> &RW<T> {
        let inside = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len);
        assert!(inside && offset.is_multiple_of(size_of::<T>()), "register access not checked by its caller");
        // SAFETY: inside the mapping and aligned, as just asserted (the mapping starts at a page); RW<T> is a
        // transparent cell around T, and any bit pattern is a valid integer.
        unsafe { &*self.base.add(offset).cast::<RW<T>>() }
    }

    volatile!(read8, write8, u8);
    volatile!(read16, write16, u16);
    volatile!(read32, write32, u32);
    volatile!(read64, write64, u64);
}

/// As an I/O error.
pub(crate) fn io(e: &mmap_rs::Error) -> std::io::Error {
    std::io::Error::other(e.to_string())
}
