//! `SharedMemory`: a mapped memfd that a device accesses concurrently. All accesses are atomic.

use std::fs::File;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use mmap_rs::{MmapFlags, MmapMut, MmapOptions};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::{Error, Result};

/// A mapped memfd.
///
/// Nothing here makes a `&[u8]` or `&mut [u8]` of the memory: the device may change it at any time. Copies are
/// relaxed atomic loads and stores; ordering against the device comes from the atomic ring indices that the driver
/// reads and writes with [`Ordering::Acquire`] and [`Ordering::Release`].
pub(crate) struct SharedMemory {
    /// Keeps the mapping alive.
    _map: MmapMut,
    base: *mut u8,
    len: usize,
    file: File,
}

// SAFETY: the mapping lives as long as the value and is only accessed through atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

macro_rules! atomic {
    ($name:ident, $ty:ty) => {
        pub(crate) fn $name(&self, offset: usize) -> &$ty {
            let inside = offset.checked_add(size_of::<$ty>()).is_some_and(|end| end <= self.len);
            assert!(
                inside && offset.is_multiple_of(size_of::<$ty>()),
                "DMA memory access at {offset:#x} is outside {:#x} bytes or not aligned",
                self.len
            );
            // SAFETY: inside the mapping and aligned, as just asserted; the mapping outlives the borrow of self;
            // every access of this process is atomic.
            unsafe { <$ty>::from_ptr(self.base.add(offset).cast()) }
        }
    };
}

impl SharedMemory {
    /// A zeroed memfd of `len` bytes, which must be a multiple of the page size. Once it is
    /// [sealed](Self::seal), no process that gets the file can change its length, after which an access would end this
    /// process (SIGBUS).
    pub(crate) fn new(len: usize, huge: bool) -> Result<Self> {
        let failed = |problem: String| Error::Memory { len, problem };
        let flags = if huge { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
        let fd =
            rustix::fs::memfd_create("culvert-dma", flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .map_err(|e| failed(format!("memfd_create: {e}")))?;
        let file = File::from(fd);
        file.set_len(len as u64).map_err(|e| failed(format!("ftruncate: {e}")))?;
        let options = MmapOptions::new(len).map_err(|e| failed(e.to_string()))?.with_flags(MmapFlags::SHARED);
        // SAFETY: the mapping is shared with the device on purpose and only accessed atomically.
        let map = unsafe { options.with_file(&file, 0) }.map_mut();
        let mut map = map.map_err(|e| failed(format!("mmap: {e}")))?;
        Ok(Self { base: map.as_mut_ptr(), len, _map: map, file })
    }

    /// Seals the length of the file.
    pub(crate) fn seal(self) -> Result<Self> {
        rustix::fs::fcntl_add_seals(&self.file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(|e| Error::Memory { len: self.len, problem: format!("sealing its length: {e}") })?;
        Ok(self)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The memory's address in this process, for the IOMMU.
    pub(crate) fn address(&self) -> *mut u8 {
        self.base
    }

    atomic!(atomic_u8, AtomicU8);
    atomic!(atomic_u16, AtomicU16);
    atomic!(atomic_u32, AtomicU32);
    atomic!(atomic_u64, AtomicU64);

    /// Whether the range is inside the memory.
    pub(crate) fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Copies out. The caller has checked the range.
    pub(crate) fn copy_out(&self, mut offset: usize, data: &mut [u8]) {
        let head = offset.next_multiple_of(8).saturating_sub(offset).min(data.len());
        let (head, rest) = data.split_at_mut(head);
        for byte in head {
            *byte = self.atomic_u8(offset).load(Ordering::Relaxed);
            offset += 1;
        }
        let (words, tail) = rest.as_chunks_mut::<8>();
        for word in words {
            *word = self.atomic_u64(offset).load(Ordering::Relaxed).to_ne_bytes();
            offset += 8;
        }
        for byte in tail {
            *byte = self.atomic_u8(offset).load(Ordering::Relaxed);
            offset += 1;
        }
    }

    /// Copies in. The caller has checked the range.
    pub(crate) fn copy_in(&self, mut offset: usize, data: &[u8]) {
        let head = offset.next_multiple_of(8).saturating_sub(offset).min(data.len());
        let (head, rest) = data.split_at(head);
        for byte in head {
            self.atomic_u8(offset).store(*byte, Ordering::Relaxed);
            offset += 1;
        }
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            self.atomic_u64(offset).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            offset += 8;
        }
        for byte in tail {
            self.atomic_u8(offset).store(*byte, Ordering::Relaxed);
            offset += 1;
        }
    }
}
