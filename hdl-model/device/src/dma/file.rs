//! One mapped file of a client: a whole memfd, and bounded copies in and out of it.

use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::Fault;
use super::sigbus::Slot;

/// Granularity of mappings in bytes.
pub const PAGE_SIZE: usize = 4096;

/// `HUGETLBFS_MAGIC` of linux/magic.h.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// What tells one file from another, and a writable mapping from a read-only one.
pub(super) type FileKey = (u64, u64, bool);

/// A mapping of a whole file. Shared with a process that we do not trust: only copied from and to, never borrowed.
pub(super) struct MappedFile {
    start: *mut u8,
    len: usize,
    /// Taken out first on drop.
    slot: Option<Slot>,
}

// SAFETY: the mapping is process-wide, its bounds do not change, and its bytes are only copied.
unsafe impl Send for MappedFile {}
// SAFETY: as above; concurrent copies are no worse than the client's own, which go on at any time.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// The file's identity, and its length.
    pub(super) fn identify(fd: &OwnedFd, writable: bool) -> Result<(FileKey, u64), Errno> {
        let stat = fstat(fd)?;
        // Only files whose length is known can be mapped with any certainty.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let len = u64::try_from(stat.st_size).map_err(|_| Errno::INVAL)?;
        Ok(((stat.st_dev, stat.st_ino, writable), len))
    }

    /// Maps the file from its start to `len`.
    pub(super) fn map(fd: &OwnedFd, len: u64, writable: bool) -> Result<Self, Errno> {
        let fs = fstatfs(fd)?;
        let page = if fs.f_type as u64 == HUGETLBFS_MAGIC { fs.f_bsize as usize } else { PAGE_SIZE };
        // The last page of a file may be partial, its mapping is whole.
        let len = usize::try_from(len)
            .ok()
            .and_then(|len| len.checked_next_multiple_of(page))
            .ok_or(Errno::NOMEM)?;
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start =
            unsafe { mmap(ptr::null_mut(), len, prot, MapFlags::SHARED | MapFlags::NORESERVE, fd, 0) }?;
        let mut file = Self { start: start.cast(), len, slot: None };
        file.slot = Some(Slot::register(start as usize, len, page).ok_or(Errno::NOSPC)?);
        Ok(file)
    }

    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }

    fn at(&self, offset: u64, len: usize) -> Result<*mut u8, Fault> {
        let offset = usize::try_from(offset).map_err(|_| Fault::Unmapped)?;
        match offset.checked_add(len) {
            // SAFETY: the result lies inside the mapping or at its end.
            Some(end) if end <= self.len => Ok(unsafe { self.start.add(offset) }),
            _ => Err(Fault::Unmapped),
        }
    }

    /// Whether no page of the mapping was found lost.
    pub(super) fn intact(&self) -> Result<(), Fault> {
        if self.slot.as_ref().is_none_or(Slot::lost) { Err(Fault::Shrunk) } else { Ok(()) }
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        let from = self.at(offset, into.len())?;
        // SAFETY: both ranges are valid for their length and do not overlap. The client may write meanwhile: the copy is
        // made by a foreign function, so that nothing is assumed about the source, and any bytes will do.
        unsafe { libc::memcpy(into.as_mut_ptr().cast(), from.cast(), into.len()) };
        self.intact()
    }

    pub(super) fn write(&self, offset: u64, from: &[u8]) -> Result<(), Fault> {
        let into = self.at(offset, from.len())?;
        // SAFETY: as in `read`; the mapping is writable, which the caller has checked against the region's rights.
        unsafe { libc::memcpy(into.cast(), from.as_ptr().cast(), from.len()) };
        self.intact()
    }

    fn word(&self, offset: u64) -> Result<&AtomicU16, Fault> {
        let at = self.at(offset, 2)?;
        if !(at as usize).is_multiple_of(2) {
            return Err(Fault::Misaligned);
        }
        // SAFETY: inside the mapping, which lives as long as `self`, and aligned. Accessed atomically on our side, and by
        // the client's processor, whose ordinary accesses are atomic for such a word.
        Ok(unsafe { AtomicU16::from_ptr(at.cast()) })
    }

    pub(super) fn load_u16(&self, offset: u64) -> Result<u16, Fault> {
        let value = self.word(offset)?.load(Ordering::Acquire);
        self.intact().map(|()| u16::from_le(value))
    }

    pub(super) fn store_u16(&self, offset: u64, value: u16) -> Result<(), Fault> {
        self.word(offset)?.store(value.to_le(), Ordering::Release);
        self.intact()
    }

    fn long(&self, offset: u64) -> Result<&AtomicU32, Fault> {
        let at = self.at(offset, 4)?;
        if !(at as usize).is_multiple_of(4) {
            return Err(Fault::Misaligned);
        }
        // SAFETY: as in `word`.
        Ok(unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    pub(super) fn load_u32(&self, offset: u64) -> Result<u32, Fault> {
        let value = self.long(offset)?.load(Ordering::SeqCst);
        self.intact().map(|()| u32::from_le(value))
    }

    pub(super) fn store_u32(&self, offset: u64, value: u32) -> Result<(), Fault> {
        self.long(offset)?.store(value.to_le(), Ordering::SeqCst);
        self.intact()
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        self.slot = None;
        // SAFETY: `start` and `len` are a mapping of ours that nobody refers to any more.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}
