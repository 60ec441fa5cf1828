//! One function's I/O address space: ranges of the client's files, or of memory reached through the client.

use std::collections::HashMap;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use culvert_virtio::{AddressSpace, FileInfo, MappedFile, PAGE_SIZE, Region, RegionError};
use rustix::io::Errno;

use crate::vfio_user::DmaRegion;

/// Ranges a client may have mapped at once: what the kernel's VFIO allows by default.
pub const MAX_REGIONS: usize = 65535;

/// What tells one file from another, and a writable mapping from a read-only one.
type FileKey = (u64, u64, bool);

#[derive(Default)]
struct Map {
    space: AddressSpace,
    /// Files that some region uses.
    files: HashMap<FileKey, Weak<MappedFile>>,
}

/// What a client has mapped for one function.
#[derive(Default)]
pub struct Memory {
    map: RwLock<Map>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("regions", &self.read_lock().space.len()).finish_non_exhaustive()
    }
}

impl Memory {
    /// Nothing mapped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range.
    ///
    /// # Errors
    /// `EINVAL` for a range that is not made of pages or does not fit its file, `EEXIST` for one that overlaps another,
    /// `ENOSPC` beyond [`MAX_REGIONS`].
    pub fn map(&self, region: DmaRegion, fd: Option<OwnedFd>) -> Result<(), Errno> {
        let DmaRegion { iova, size, offset, read, write } = region;
        let wraps = size.checked_sub(1).and_then(|more| iova.checked_add(more)).is_none();
        if wraps || [iova, size, offset].iter().any(|value| value % PAGE_SIZE as u64 != 0) {
            return Err(Errno::INVAL);
        }
        let mut map = self.write_lock();
        if map.space.len() >= MAX_REGIONS {
            return Err(Errno::NOSPC);
        }
        // Before the file is mapped, which costs more.
        if map.space.overlaps(iova, size) {
            return Err(Errno::EXIST);
        }
        let file = fd.map(|fd| map.file(&fd, offset, size, write)).transpose()?;
        map.space.insert(iova, Region { size, offset, read, write, file }).map_err(errno)
    }

    /// Removes the ranges inside `iova .. iova + size` and returns how many bytes that were. Returns when no view can use
    /// them any more.
    ///
    /// # Errors
    /// `EINVAL` for a range that is only partly inside: nothing is removed.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64, Errno> {
        let mut map = self.write_lock();
        let removed = map.space.remove(iova, size).map_err(errno)?;
        map.forget_files();
        Ok(removed)
    }

    /// Removes everything. Returns the number of bytes that were mapped.
    pub fn clear(&self) -> u64 {
        self.unmap_all()
    }

    /// Removes every range.
    pub fn unmap_all(&self) -> u64 {
        self.write_lock().unmap_all()
    }

    /// Access to what is mapped now; while it lives, nothing is removed. Keep it for a burst, not longer: the client
    /// waits. Do not take a second one on the same thread meanwhile.
    pub fn view(&self) -> View<'_> {
        View(self.read_lock())
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn errno(error: RegionError) -> Errno {
    match error {
        RegionError::Invalid | RegionError::Splits => Errno::INVAL,
        RegionError::Overlap => Errno::EXIST,
    }
}

impl Map {
    /// The mapping of this file, new or shared with other ranges.
    fn file(&mut self, fd: &OwnedFd, offset: u64, size: u64, write: bool) -> Result<Arc<MappedFile>, Errno> {
        let info = FileInfo::of(fd)?;
        let key = (info.device, info.inode, write);
        let end = offset.checked_add(size).ok_or(Errno::INVAL)?;
        if let Some(file) = self
            .files
            .get(&key)
            .and_then(Weak::upgrade)
            .filter(|file| end <= file.len() as u64 && file.check_intact().is_ok())
        {
            return Ok(file);
        }
        // The last page of a file may be partial, its mapping is whole.
        if end > info.len.next_multiple_of(PAGE_SIZE as u64) {
            return Err(Errno::INVAL);
        }
        let file = Arc::new(MappedFile::map(fd, &info, info.len, write)?);
        self.files.insert(key, Arc::downgrade(&file));
        Ok(file)
    }

    fn forget_files(&mut self) {
        self.files.retain(|_, file| file.strong_count() > 0);
    }

    fn unmap_all(&mut self) -> u64 {
        let removed = self.space.clear();
        self.forget_files();
        removed
    }
}

/// Access to a function's memory.
pub struct View<'a>(RwLockReadGuard<'a, Map>);

impl Deref for View<'_> {
    type Target = AddressSpace;

    fn deref(&self) -> &AddressSpace {
        &self.0.space
    }
}
