//! A mapped memory file of a guest, and bounded copies in and out of it.
//!
//! The guest writes there at any time, and whoever owns the file may shorten it: bytes are only copied, and after each copy
//! it is checked whether they were still there.

#![allow(
    unsafe_code,
    reason = "mapping a file, and access to memory shared with another process, have no safe form"
)]

use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};

use culvert_packet::{prefetch, prefetch_to_write};
use rustix::fs::{fcntl_get_seals, fstat, fstatfs};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vm_memory::{ByteValued, VolatileMemory, VolatileMemoryError, VolatileSlice};

use super::share::{Charge, MapError, MemoryShare};
use super::sigbus::{ENTRIES, Registration};
use crate::fault::MemoryFault;

/// Granularity of mappings in bytes.
pub const PAGE_SIZE: usize = 4096;
/// `HUGETLBFS_MAGIC` and `TMPFS_MAGIC` (linux/magic.h); the latter is also a memfd's.
const HUGETLBFS: u64 = 0x9584_58f6;
const TMPFS: u64 = 0x0102_1994;
/// Bytes of a cache line, and of a buffer that are prefetched: the processor's own prefetcher does the rest.
const LINE: usize = 64;
const PREFETCHED: usize = 2 * LINE;

/// A file whose pages are in memory, before it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its file system's device.
    pub device: u64,
    /// Its number in the file system.
    pub inode: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Length of its pages.
    pub page: usize,
}

impl FileInfo {
    /// Looks at a file of a client. Waits for no file system but the kernel's own, whatever the file is.
    ///
    /// # Errors
    /// [`MapError::NotInMemory`], or the system's.
    pub fn of(file: impl AsFd) -> Result<Self, MapError> {
        // Only files of tmpfs and hugetlbfs, and memfds, which are one or the other, have seals. The kernel answers this
        // itself; `fstat` and `fstatfs` of a file in FUSE wait for the client's file server.
        fcntl_get_seals(&file).map_err(|_| MapError::NotInMemory)?;
        let (stat, system) = (fstat(&file)?, fstatfs(&file)?);
        let page = match system.f_type as u64 {
            HUGETLBFS => system.f_bsize as usize,
            TMPFS => PAGE_SIZE,
            _ => return Err(MapError::NotInMemory),
        };
        let len = u64::try_from(stat.st_size).map_err(|_| MapError::OutOfRange)?;
        Ok(FileInfo { device: stat.st_dev, inode: stat.st_ino, len, page })
    }

    /// The range of whole pages around `offset .. offset + len`.
    fn pages(&self, offset: u64, len: u64) -> Option<Range<u64>> {
        let end = offset.checked_add(len).filter(|end| *end > offset)?;
        // The last page of a file may be partial, its mapping is whole.
        if end > self.len.checked_next_multiple_of(self.page as u64)? {
            return None;
        }
        let start = offset - offset.checked_rem(self.page as u64)?;
        Some(start..end.checked_next_multiple_of(self.page as u64)?)
    }
}

/// A mapping of a part of a file. Shared with a process that we do not trust: only copied from and to, never
/// borrowed.
pub struct MappedFile {
    /// Is dropped before the mapping.
    registration: Registration,
    mapping: Mapping,
    /// Where in the file it begins.
    offset: u64,
    _charge: Charge,
}

/// Memory that is unmapped on drop.
struct Mapping {
    start: *mut u8,
    len: usize,
}

// SAFETY: the mapping is process-wide, its bounds do not change, and its bytes are only copied.
unsafe impl Send for Mapping {}
// SAFETY: as above; concurrent copies are no worse than those of the guest, which happen at any time.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are a mapping of ours that nothing refers to any more.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

fn fault(error: &VolatileMemoryError) -> MemoryFault {
    match error {
        VolatileMemoryError::Misaligned { .. } => MemoryFault::Misaligned,
        _ => MemoryFault::Unmapped,
    }
}

impl MappedFile {
    /// Maps the pages of a file that have the bytes `offset .. offset + len`, as a part of a client's share.
    ///
    /// # Errors
    /// What [`MapError`] says.
    pub fn map(
        file: impl AsFd,
        info: &FileInfo,
        (offset, len): (u64, u64),
        writable: bool,
        share: &Arc<MemoryShare>,
    ) -> Result<Self, MapError> {
        let pages = info.pages(offset, len).ok_or(MapError::OutOfRange)?;
        let bytes = pages.end - pages.start;
        let charge = share.charge(bytes)?;
        let len = usize::try_from(bytes).map_err(|_| MapError::OutOfRange)?;
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(ptr::null_mut(), len, prot, flags, file, pages.start) }?;
        let mapping = Mapping { start: start.cast(), len };
        let registration = Registration::new(start as usize, len, info.page);
        let registration = registration.ok_or(MapError::ProcessLimit(ENTRIES))?;
        Ok(MappedFile { registration, mapping, offset: pages.start, _charge: charge })
    }

    /// Where in the mapping the bytes `offset .. offset + len` of the file begin, if it has all of them.
    pub fn position(&self, offset: u64, len: u64) -> Option<u64> {
        let at = offset.checked_sub(self.offset)?;
        let end = at.checked_add(len)?;
        (end <= self.len() as u64).then_some(at)
    }

    /// Length of the mapping, whole pages.
    pub fn len(&self) -> usize {
        self.mapping.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that no page of the mapping was found lost.
    ///
    /// # Errors
    /// [`MemoryFault::Shrunk`].
    #[inline]
    pub fn check_intact(&self) -> Result<(), MemoryFault> {
        if self.registration.is_lost() { Err(MemoryFault::Shrunk) } else { Ok(()) }
    }

    #[inline]
    fn bytes(&self) -> VolatileSlice<'_> {
        // SAFETY: the mapping is valid for its length and lives as long as the slice's borrow of `self`. All accesses to it
        // are volatile, atomic or copies, as the guest's concurrent accesses demand. A read-only mapping is not written,
        // which the region's rights see to.
        unsafe { VolatileSlice::new(self.mapping.start, self.mapping.len) }
    }

    /// Copies from the file.
    ///
    /// # Errors
    /// The range lies outside the mapping, or the file has shrunk.
    #[inline]
    pub fn read(&self, at: usize, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.bytes().get_slice(at, into.len()).map_err(|e| fault(&e))?.copy_to(into);
        self.check_intact()
    }

    /// Copies to the file, which was mapped writable.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn write(&self, at: usize, from: &[u8]) -> Result<(), MemoryFault> {
        self.bytes().get_slice(at, from.len()).map_err(|e| fault(&e))?.copy_from(from);
        self.check_intact()
    }

    /// Copies a value from the file.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn read_value<T: ByteValued>(&self, at: usize) -> Result<T, MemoryFault> {
        let value = self.bytes().get_ref::<T>(at).map_err(|e| fault(&e))?.load();
        self.check_intact().map(|()| value)
    }

    /// Writes a value to the file, which was mapped writable.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn write_value<T: ByteValued>(&self, at: usize, value: T) -> Result<(), MemoryFault> {
        self.bytes().get_ref::<T>(at).map_err(|e| fault(&e))?.store(value);
        self.check_intact()
    }

    /// Reads a little-endian word, with acquire ordering.
    ///
    /// # Errors
    /// As [`read`](Self::read), or it is not aligned.
    #[inline]
    pub fn load_u16(&self, at: usize) -> Result<u16, MemoryFault> {
        let value =
            self.bytes().get_atomic_ref::<AtomicU16>(at).map_err(|e| fault(&e))?.load(Ordering::Acquire);
        self.check_intact().map(|()| u16::from_le(value))
    }

    /// Writes a little-endian word, with release ordering.
    ///
    /// # Errors
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    pub fn store_u16(&self, at: usize, value: u16) -> Result<(), MemoryFault> {
        let bytes = self.bytes();
        bytes.get_atomic_ref::<AtomicU16>(at).map_err(|e| fault(&e))?.store(value.to_le(), Ordering::Release);
        self.check_intact()
    }

    /// Reads a little-endian word, sequentially consistent.
    ///
    /// # Errors
    /// As [`load_u16`](Self::load_u16).
    pub fn load_u32(&self, at: usize) -> Result<u32, MemoryFault> {
        let value =
            self.bytes().get_atomic_ref::<AtomicU32>(at).map_err(|e| fault(&e))?.load(Ordering::SeqCst);
        self.check_intact().map(|()| u32::from_le(value))
    }

    /// Writes a little-endian word, sequentially consistent.
    ///
    /// # Errors
    /// As [`load_u16`](Self::load_u16).
    pub fn store_u32(&self, at: usize, value: u32) -> Result<(), MemoryFault> {
        let bytes = self.bytes();
        bytes.get_atomic_ref::<AtomicU32>(at).map_err(|e| fault(&e))?.store(value.to_le(), Ordering::SeqCst);
        self.check_intact()
    }

    /// Prefetches the first cache lines of a range, to be read or to be written.
    #[inline]
    pub fn prefetch(&self, at: usize, len: usize, write: bool) {
        let bytes = self.bytes();
        for byte in (at..at + len.min(PREFETCHED)).step_by(LINE) {
            match bytes.get_atomic_ref::<AtomicU8>(byte) {
                Ok(byte) if write => prefetch_to_write(byte),
                Ok(byte) => prefetch(byte),
                Err(_) => return,
            }
        }
    }
}
