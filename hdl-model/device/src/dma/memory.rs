//! One function's I/O address space: ranges of the client's files, or of memory reached through the client.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use culvert_virtio::{
    AddressSpace, FileInfo, MapError, MappedFile, MemoryShare, PAGE_SIZE, Region, RegionError,
};
use rustix::io::Errno;

use crate::vfio_user::DmaRegion;

/// Ranges a client may have mapped at once. A virtual IOMMU makes thousands; each costs some 200 bytes.
pub const MAX_REGIONS: usize = 16384;
/// Mappings of one file for its ranges, before the whole file is mapped: a virtual IOMMU maps a file page by page.
const MAX_PARTS: usize = 8;

/// How long an unmap waits until no view can use what it has removed. A view lives for a part of a burst.
const UNMAP_LIMIT: Duration = Duration::from_secs(1);
/// How long every change waits for the same, only to save the next one a copy of the table.
const REUSE_LIMIT: Duration = Duration::from_millis(1);
/// Interval in which a wait looks, after a first look at once.
const POLL: Duration = Duration::from_micros(50);

/// What tells one file from another, and a writable mapping from a read-only one.
type FileKey = (u64, u64, bool);

/// What a client has mapped for one function.
///
/// The engine's views share an address space that never changes. The client's thread prepares a changed one and puts it in
/// its place; nobody waits for that thread, whatever its client gives it to look at.
pub struct Memory {
    /// What views see.
    current: ArcSwap<AddressSpace>,
    /// Only threads of the client's own connection take it.
    writer: Mutex<Writer>,
}

/// The side of the client's thread.
struct Writer {
    /// An address space equal to the current one, which no view uses: the next change is made in it.
    spare: Option<Arc<AddressSpace>>,
    /// Address spaces that a view used for too long. Kept, so that no view is the last one to use a file: unmapping one
    /// takes long.
    retired: Vec<Arc<AddressSpace>>,
    /// Mappings of files that some region uses.
    files: HashMap<FileKey, Vec<Weak<MappedFile>>>,
    share: Arc<MemoryShare>,
}

/// A change of the address space.
#[derive(Clone)]
enum Change {
    Insert(u64, Region),
    Remove(u64, u64),
    RemoveAll,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("regions", &self.view().len()).finish_non_exhaustive()
    }
}

impl Default for Memory {
    fn default() -> Self {
        let writer =
            Writer { spare: None, retired: Vec::new(), files: HashMap::new(), share: MemoryShare::new() };
        Memory { current: ArcSwap::default(), writer: Mutex::new(writer) }
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
        let mut writer = self.writer();
        let current = self.current.load();
        if current.len() >= MAX_REGIONS {
            tracing::warn!(
                iova,
                "refused a range: the client has {MAX_REGIONS}, as many as a client may have"
            );
            return Err(Errno::NOSPC);
        }
        // Before the file is mapped, which costs more.
        if current.overlaps(iova, size) {
            return Err(Errno::EXIST);
        }
        drop(current);
        let file = fd.map(|fd| writer.file(&fd, offset, size, write)).transpose().map_err(|error| {
            writer.forget_files();
            tracing::warn!(iova, size, offset, %error, "refused a range of a client's memory");
            errno_of_map(error)
        })?;
        let (file, offset) = file.map_or((None, offset), |(file, offset)| (Some(file), offset));
        let change = Change::Insert(iova, Region { size, offset, read, write, file });
        self.change(&mut writer, &change).map(drop)
    }

    /// Removes the ranges inside `iova .. iova + size` and returns how many bytes that were. Returns when no view can use
    /// them any more.
    ///
    /// # Errors
    /// `EINVAL` for a range that is only partly inside: nothing is removed. `EBUSY`: the ranges are removed, but an access
    /// has been under way for a second and goes on.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64, Errno> {
        self.remove(&Change::Remove(iova, size)).and_then(not_in_use)
    }

    /// Removes everything. Returns the number of bytes that were mapped.
    pub fn clear(&self) -> u64 {
        // Only a change that names a range can fail.
        self.remove(&Change::RemoveAll).map_or(0, |(bytes, _unused)| bytes)
    }

    /// Removes every range.
    ///
    /// # Errors
    /// `EBUSY`, as [`unmap`](Self::unmap).
    pub fn unmap_all(&self) -> Result<u64, Errno> {
        self.remove(&Change::RemoveAll).and_then(not_in_use)
    }

    /// Removes ranges and waits until no view can use them. Returns how many bytes that were, and whether the wait was
    /// successful.
    fn remove(&self, change: &Change) -> Result<(u64, bool), Errno> {
        let mut writer = self.writer();
        let removed = self.change(&mut writer, change)?;
        let unused = wait_until(UNMAP_LIMIT, || writer.forget_retired());
        writer.forget_files();
        Ok((removed, unused))
    }

    /// Access to what is mapped now; while it lives, what it can reach stays mapped. Keep it for a burst, not longer: the
    /// client waits. Never waits itself.
    pub fn view(&self) -> View<'_> {
        View(self.current.load(), PhantomData)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, and returns how many bytes it has removed. Views may still see what was before.
    fn change(&self, writer: &mut Writer, change: &Change) -> Result<u64, Errno> {
        let mut next = match writer.spare.take() {
            Some(spare) => spare,
            None => Arc::new(AddressSpace::clone(&self.current.load())),
        };
        // Always: nobody else has it.
        let space = Arc::get_mut(&mut next).ok_or(Errno::BUSY)?;
        let removed = match change.apply(space) {
            Ok(removed) => removed,
            Err(error) => {
                writer.spare = Some(next);
                return Err(errno(error));
            }
        };
        let mut old = self.current.swap(next);
        wait_until(REUSE_LIMIT, || Arc::get_mut(&mut old).is_some());
        // Both were equal: what succeeded in one does in the other.
        match Arc::get_mut(&mut old).map(|space| change.apply(space)) {
            Some(Ok(_)) => writer.spare = Some(old),
            _ => writer.retired.push(old),
        }
        writer.forget_retired();
        Ok(removed)
    }
}

/// The bytes that were removed, if no view can use them.
fn not_in_use((bytes, unused): (u64, bool)) -> Result<u64, Errno> {
    if unused { Ok(bytes) } else { Err(Errno::BUSY) }
}

impl Change {
    /// Makes the change, and returns how many bytes it has removed.
    fn apply(&self, space: &mut AddressSpace) -> Result<u64, RegionError> {
        match self {
            Change::Insert(iova, region) => space.insert(*iova, region.clone()).map(|()| 0),
            Change::Remove(iova, size) => space.remove(*iova, *size),
            Change::RemoveAll => Ok(space.clear()),
        }
    }
}

/// Waits until something holds, for a limited time. `false`: it does not.
fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let mut end = None;
    while !holds() {
        if Instant::now() >= *end.get_or_insert_with(|| Instant::now() + limit) {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
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

impl Writer {
    /// A mapping of this range of a file, new or shared with other ranges, and where in it the range begins.
    fn file(
        &mut self,
        fd: &OwnedFd,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Result<(Arc<MappedFile>, u64), MapError> {
        let info = FileInfo::of(fd)?;
        let known = self.files.entry((info.device, info.inode, write)).or_default();
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

    /// Drops the address spaces that no view uses any more. `true`: that is all of them.
    fn forget_retired(&mut self) -> bool {
        // The count of an address space that is no longer current only falls.
        self.retired.retain(|space| Arc::strong_count(space) > 1);
        self.retired.is_empty()
    }

    fn forget_files(&mut self) {
        self.files.retain(|_, files| {
            files.retain(|file| file.strong_count() > 0);
            !files.is_empty()
        });
    }
}

/// Access to a function's memory.
pub struct View<'a>(Guard<Arc<AddressSpace>>, PhantomData<&'a Memory>);

impl Deref for View<'_> {
    type Target = AddressSpace;

    fn deref(&self) -> &AddressSpace {
        &self.0
    }
}
