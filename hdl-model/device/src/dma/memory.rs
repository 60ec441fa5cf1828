//! One function's I/O address space: ranges of the client's files, or of memory reached through the client.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use culvert_virtio::{
    FileInfo, MapError, MappedFile, MemoryShare, PAGE_SIZE, Region, RegionError, SharedSpace, SpaceChange,
};
use rustix::io::Errno;

use crate::vfio_user::DmaRegion;

/// Ranges a client may have mapped at once. A virtual IOMMU makes thousands; each costs some 200 bytes.
pub const MAX_REGIONS: usize = 16384;
/// Mappings of one file for its ranges, before the whole file is mapped: a virtual IOMMU maps a file page by page.
const MAX_PARTS: usize = 8;
/// How long an unmap waits until no view can use what it has removed. A view lives for a part of a burst.
const UNMAP_LIMIT: Duration = Duration::from_secs(1);

/// What tells one file from another, and a writable mapping from a read-only one.
type FileKey = (u64, u64, bool);

/// Access to a function's memory.
pub type View<'a> = culvert_virtio::SpaceView<'a>;

/// What a client has mapped for one function.
#[derive(Default)]
pub struct Memory {
    space: SharedSpace,
    /// Only threads of the client's own connection take it: they may wait for the client.
    files: Mutex<Files>,
}

/// The client's files.
#[derive(Default)]
struct Files {
    /// Mappings that some region uses.
    mapped: HashMap<FileKey, Vec<Weak<MappedFile>>>,
    share: Arc<MemoryShare>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("regions", &self.view().len()).finish_non_exhaustive()
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
    /// `EINVAL` for a range that is not made of pages or does not fit its file, and for a file that is not in memory;
    /// `EEXIST` for a range that overlaps another; `ENOSPC` beyond [`MAX_REGIONS`] or the client's
    /// [`MemoryShare`].
    pub fn map(&self, region: DmaRegion, fd: Option<OwnedFd>) -> Result<(), Errno> {
        let DmaRegion { iova, size, offset, read, write } = region;
        let wraps = size.checked_sub(1).and_then(|more| iova.checked_add(more)).is_none();
        if wraps || [iova, size, offset].iter().any(|value| value % PAGE_SIZE as u64 != 0) {
            return Err(Errno::INVAL);
        }
        // Closed when the lock is free again: that may ask the client's file server.
        let fd = fd;
        let mut files = self.files();
        let view = self.view();
        if view.len() >= MAX_REGIONS {
            tracing::warn!(
                iova,
                "refused a range: the client has {MAX_REGIONS}, as many as a client may have"
            );
            return Err(Errno::NOSPC);
        }
        // Before the file is mapped, which costs more.
        if view.overlaps(iova, size) {
            return Err(Errno::EXIST);
        }
        drop(view);
        let file = fd.as_ref().map(|fd| files.map(fd, offset, size, write)).transpose().map_err(|error| {
            files.forget_unused();
            tracing::warn!(iova, size, offset, %error, "refused a range of a client's memory");
            errno_of_map(error)
        })?;
        let (file, offset) = file.map_or((None, offset), |(file, offset)| (Some(file), offset));
        let change = SpaceChange::Insert(iova, Region { size, offset, read, write, file });
        let done = self.space.change(&change).map(drop).map_err(errno);
        drop(files);
        // To close it may ask the client's own file server.
        drop(fd);
        done
    }

    /// Removes the ranges inside `iova .. iova + size` and returns how many bytes that were. Returns when no view can use
    /// them any more.
    ///
    /// # Errors
    /// `EINVAL` for a range that is only partly inside: nothing is removed. `EBUSY`: the ranges are removed, but an access
    /// has been under way for a second and goes on.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64, Errno> {
        self.remove(&SpaceChange::Remove(iova, size)).and_then(not_in_use)
    }

    /// Removes everything. Returns the number of bytes that were mapped.
    pub fn clear(&self) -> u64 {
        // Only a change that names a range can fail.
        self.remove(&SpaceChange::RemoveAll).map_or(0, |(bytes, _unused)| bytes)
    }

    /// Removes every range.
    ///
    /// # Errors
    /// `EBUSY`, as [`unmap`](Self::unmap).
    pub fn unmap_all(&self) -> Result<u64, Errno> {
        self.remove(&SpaceChange::RemoveAll).and_then(not_in_use)
    }

    /// Removes ranges and waits until no view can use them. Returns how many bytes that were, and whether the wait was
    /// successful.
    fn remove(&self, change: &SpaceChange) -> Result<(u64, bool), Errno> {
        let mut files = self.files();
        let removed = self.space.change(change).map_err(errno)?;
        let unused = self.space.wait_unused(UNMAP_LIMIT);
        files.forget_unused();
        Ok((removed, unused))
    }

    /// Access to what is mapped now; while it lives, what it can reach stays mapped. Keep it for a burst, not longer: the
    /// client waits. Never waits itself.
    pub fn view(&self) -> View<'_> {
        self.space.view()
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes that were removed, if no view can use them.
fn not_in_use((bytes, unused): (u64, bool)) -> Result<u64, Errno> {
    if unused { Ok(bytes) } else { Err(Errno::BUSY) }
}

fn errno(error: RegionError) -> Errno {
    match error {
        RegionError::Invalid | RegionError::Splits => Errno::INVAL,
        RegionError::Overlap => Errno::EXIST,
    }
}

fn errno_of_map(error: MapError) -> Errno {
    match error {
        MapError::NotInMemory | MapError::OutOfRange => Errno::INVAL,
        MapError::TooManyMappings | MapError::TooManyBytes | MapError::ProcessLimit(_) => Errno::NOSPC,
        MapError::System(errno) => errno,
    }
}

impl Files {
    /// A mapping of this range of a file, new or shared with other ranges, and where in it the range begins.
    fn map(
        &mut self,
        fd: &OwnedFd,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Result<(Arc<MappedFile>, u64), MapError> {
        let info = FileInfo::of(fd)?;
        let known = self.mapped.entry((info.device, info.inode, write)).or_default();
        let found = known.iter().filter_map(Weak::upgrade).find_map(|file| {
            let at = file.position(offset, size).filter(|_| file.check_intact().is_ok())?;
            Some((file, at))
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let map = |offset, len| MappedFile::map(fd, &info, (offset, len), write, &self.share).map(Arc::new);
        let whole = if known.len() < MAX_PARTS { None } else { map(0, info.len).ok() };
        // A file too long for the client's share is mapped in parts.
        let file = match whole.filter(|file| file.position(offset, size).is_some()) {
            Some(file) => file,
            None => map(offset, size)?,
        };
        known.push(Arc::downgrade(&file));
        let at = file.position(offset, size).ok_or(MapError::OutOfRange)?;
        Ok((file, at))
    }

    fn forget_unused(&mut self) {
        self.mapped.retain(|_, files| {
            files.retain(|file| file.strong_count() > 0);
            !files.is_empty()
        });
    }
}
