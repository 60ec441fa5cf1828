//! One function's I/O address space: ranges of the client's files, or of memory reached through the client.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use rustix::io::Errno;

use super::Fault;
use super::file::{FileKey, MappedFile, PAGE_SIZE};
use crate::vfio_user::{DmaRegion, RemoteDma};

/// Ranges a client may have mapped at once: what the kernel's VFIO allows by default.
pub const MAX_REGIONS: usize = 65535;

struct Region {
    size: u64,
    offset: u64,
    read: bool,
    write: bool,
    /// `None`: reached through the client.
    file: Option<Arc<MappedFile>>,
}

#[derive(Default)]
struct Map {
    regions: BTreeMap<u64, Region>,
    /// Files that some region uses.
    files: HashMap<FileKey, Weak<MappedFile>>,
    remote: Option<Arc<RemoteDma>>,
}

/// What a client has mapped for one function.
#[derive(Default)]
pub struct Memory {
    map: RwLock<Map>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("regions", &self.read_lock().regions.len()).finish_non_exhaustive()
    }
}

impl Memory {
    /// Nothing mapped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range. Errors: `EINVAL` for a range that is not made of pages or does not fit its file, `EEXIST` for one
    /// that overlaps another, `ENOSPC` beyond [`MAX_REGIONS`].
    pub fn map(&self, region: DmaRegion, fd: Option<OwnedFd>) -> Result<(), Errno> {
        let DmaRegion { iova, size, offset, read, write } = region;
        let last = size.checked_sub(1).and_then(|more| iova.checked_add(more)).ok_or(Errno::INVAL)?;
        if [iova, size, offset].iter().any(|value| value % PAGE_SIZE as u64 != 0) {
            return Err(Errno::INVAL);
        }
        let mut map = self.write_lock();
        if map.regions.len() >= MAX_REGIONS {
            return Err(Errno::NOSPC);
        }
        if map.regions.range(..=last).next_back().is_some_and(|(start, old)| start + (old.size - 1) >= iova) {
            return Err(Errno::EXIST);
        }
        let file = fd.map(|fd| map.file(&fd, offset, size, write)).transpose()?;
        map.regions.insert(iova, Region { size, offset, read, write, file });
        Ok(())
    }

    /// Removes the ranges inside `iova .. iova + size` and returns how many bytes that were. A range that is only
    /// partly inside is an error (`EINVAL`), and nothing is removed. Returns when no view can use them any more.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64, Errno> {
        let last = size.checked_sub(1).and_then(|more| iova.checked_add(more)).ok_or(Errno::INVAL)?;
        let mut map = self.write_lock();
        let splits_first =
            map.regions.range(..iova).next_back().is_some_and(|(start, old)| start + (old.size - 1) >= iova);
        let splits_last = map
            .regions
            .range(iova..=last)
            .next_back()
            .is_some_and(|(start, old)| start + (old.size - 1) > last);
        if splits_first || splits_last {
            return Err(Errno::INVAL);
        }
        let starts: Vec<u64> = map.regions.range(iova..=last).map(|(start, _)| *start).collect();
        let removed = starts.iter().filter_map(|start| map.regions.remove(start)).map(|old| old.size).sum();
        map.forget_files();
        Ok(removed)
    }

    /// Removes everything, and the way to the client. Returns the number of bytes that were mapped.
    pub fn clear(&self) -> u64 {
        let mut map = self.write_lock();
        map.remote = None;
        map.unmap_all()
    }

    /// Removes every range, but keeps the way to the client.
    pub fn unmap_all(&self) -> u64 {
        self.write_lock().unmap_all()
    }

    /// Sets the way to memory that has no file descriptor.
    pub fn set_remote(&self, remote: Arc<RemoteDma>) {
        self.write_lock().remote = Some(remote);
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

impl Map {
    /// The mapping of this file, new or shared with other ranges.
    fn file(&mut self, fd: &OwnedFd, offset: u64, size: u64, write: bool) -> Result<Arc<MappedFile>, Errno> {
        let (key, len) = MappedFile::identify(fd, write)?;
        let end = offset.checked_add(size).ok_or(Errno::INVAL)?;
        if let Some(file) = self
            .files
            .get(&key)
            .and_then(Weak::upgrade)
            .filter(|file| end <= file.len() && file.intact().is_ok())
        {
            return Ok(file);
        }
        if end > len.next_multiple_of(PAGE_SIZE as u64) {
            return Err(Errno::INVAL);
        }
        let file = Arc::new(MappedFile::map(fd, len, write)?);
        self.files.insert(key, Arc::downgrade(&file));
        Ok(file)
    }

    fn forget_files(&mut self) {
        self.files.retain(|_, file| file.strong_count() > 0);
    }

    fn unmap_all(&mut self) -> u64 {
        let removed = self.regions.values().map(|old| old.size).sum();
        self.regions.clear();
        self.forget_files();
        removed
    }
}

/// Access to a function's memory. Copies only: the client may change any byte at any time.
pub struct View<'a>(RwLockReadGuard<'a, Map>);

impl View<'_> {
    /// The region around `iova` and the offset in it.
    fn find(&self, iova: u64) -> Result<(&Region, u64), Fault> {
        let (start, region) = self.0.regions.range(..=iova).next_back().ok_or(Fault::Unmapped)?;
        let inside = iova - start;
        if inside < region.size { Ok((region, inside)) } else { Err(Fault::Unmapped) }
    }

    fn remote(&self) -> Result<&RemoteDma, Fault> {
        self.0.remote.as_deref().ok_or(Fault::Remote)
    }

    /// Copies from memory; the range may span regions.
    pub fn read(&self, mut iova: u64, mut into: &mut [u8]) -> Result<(), Fault> {
        while !into.is_empty() {
            let (region, inside) = self.find(iova)?;
            if !region.read {
                return Err(Fault::Denied);
            }
            let n = usize::try_from(region.size - inside).unwrap_or(usize::MAX).min(into.len());
            let (now, rest) = into.split_at_mut(n);
            match &region.file {
                Some(file) => file.read(region.offset + inside, now)?,
                None => self.remote()?.read(iova, now).map_err(|_| Fault::Remote)?,
            }
            into = rest;
            iova = advance(iova, n, into.is_empty())?;
        }
        Ok(())
    }

    /// Copies to memory; the range may span regions. A fault may leave the range partly written.
    pub fn write(&self, mut iova: u64, mut from: &[u8]) -> Result<(), Fault> {
        while !from.is_empty() {
            let (region, inside) = self.find(iova)?;
            if !region.write {
                return Err(Fault::Denied);
            }
            let n = usize::try_from(region.size - inside).unwrap_or(usize::MAX).min(from.len());
            let (now, rest) = from.split_at(n);
            match &region.file {
                Some(file) => file.write(region.offset + inside, now)?,
                None => self.remote()?.write(iova, now).map_err(|_| Fault::Remote)?,
            }
            from = rest;
            iova = advance(iova, n, from.is_empty())?;
        }
        Ok(())
    }

    /// Reads a little-endian word at once, with acquire ordering: ring indices.
    pub fn load_u16(&self, iova: u64) -> Result<u16, Fault> {
        let (region, inside) = self.find(iova)?;
        match &region.file {
            _ if !region.read => Err(Fault::Denied),
            Some(file) if inside + 2 <= region.size => file.load_u16(region.offset + inside),
            _ => {
                let mut bytes = [0; 2];
                self.read(iova, &mut bytes)?;
                Ok(u16::from_le_bytes(bytes))
            }
        }
    }

    /// Writes a little-endian word at once, with release ordering: ring indices.
    pub fn store_u16(&self, iova: u64, value: u16) -> Result<(), Fault> {
        let (region, inside) = self.find(iova)?;
        match &region.file {
            _ if !region.write => Err(Fault::Denied),
            Some(file) if inside + 2 <= region.size => file.store_u16(region.offset + inside, value),
            _ => self.write(iova, &value.to_le_bytes()),
        }
    }

    /// Reads a little-endian 32-bit word at once, sequentially consistent: indices and flags of PF rings.
    pub fn load_u32(&self, iova: u64) -> Result<u32, Fault> {
        let (region, inside) = self.find(iova)?;
        match &region.file {
            _ if !region.read => Err(Fault::Denied),
            Some(file) if inside + 4 <= region.size => file.load_u32(region.offset + inside),
            _ => self.read_u32(iova),
        }
    }

    /// Writes a little-endian 32-bit word at once, sequentially consistent.
    pub fn store_u32(&self, iova: u64, value: u32) -> Result<(), Fault> {
        let (region, inside) = self.find(iova)?;
        match &region.file {
            _ if !region.write => Err(Fault::Denied),
            Some(file) if inside + 4 <= region.size => file.store_u32(region.offset + inside, value),
            _ => self.write(iova, &value.to_le_bytes()),
        }
    }

    /// Reads a little-endian 32-bit number.
    pub fn read_u32(&self, iova: u64) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.read(iova, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Whether the whole range is mapped.
    pub fn contains(&self, iova: u64, len: u64) -> bool {
        let (mut at, mut left) = (iova, len);
        while left > 0 {
            let Ok((region, inside)) = self.find(at) else { return false };
            let n = (region.size - inside).min(left);
            left -= n;
            match at.checked_add(n) {
                Some(next) => at = next,
                None => return left == 0,
            }
        }
        true
    }
}

fn advance(iova: u64, by: usize, done: bool) -> Result<u64, Fault> {
    match iova.checked_add(by as u64) {
        Some(next) => Ok(next),
        None if done => Ok(0),
        None => Err(Fault::Unmapped),
    }
}
