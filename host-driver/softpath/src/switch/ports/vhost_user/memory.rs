//! A guest's memory: files that its VMM has passed, mapped, and bounded copies in and out of them.
//!
//! The guest writes there at any time, and whoever owns a file may cut it off: so bytes are only copied, and after each
//! copy it is asked whether they were still there.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use rustix::fs::{FileType, fstat, fstatfs};
use vm_memory::{ByteValued, FileOffset, MmapRegion, VolatileMemory};

use super::RingFault;
use super::sigbus::Slot;

/// `HUGETLBFS_MAGIC` and `TMPFS_MAGIC` (linux/magic.h); the latter is also a memfd's.
const HUGETLBFS: u64 = 0x9584_58f6;
const TMPFS: u64 = 0x0102_1994;
/// Bytes of all regions of a guest: address space is all guests' together.
const LONGEST: u64 = 1 << 42;
const PAGE: usize = 4096;
/// Bytes of a cache line, and of a frame that are called for early: the processor's own prefetcher sees to the rest.
const LINE: usize = 64;
const PREFETCHED: usize = 2 * LINE;

/// A region as the VMM describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description {
    /// Where the guest sees it.
    pub(super) guest: u64,
    /// Where the VMM sees it, which is how it names the rings.
    pub(super) user: u64,
    pub(super) len: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
}

/// A mapping from a file's beginning on.
pub(super) struct Map {
    /// Goes before the mapping.
    slot: Slot,
    region: MmapRegion,
}

impl Map {
    /// From the file's beginning, since an offset would have to be a multiple of whatever pages the file has.
    fn new(file: File, len: u64) -> Option<Self> {
        let stat = fstat(&file).ok()?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let size = u64::try_from(stat.st_size).ok()?;
        if !regular || len > size {
            return None;
        }
        let system = fstatfs(file.as_fd()).ok()?;
        // A page of a file anywhere else, in a file system of the VMM's own even, might be waited for.
        let page = match system.f_type as u64 {
            TMPFS => PAGE,
            HUGETLBFS => usize::try_from(system.f_bsize).ok()?,
            _ => return None,
        };
        let len = usize::try_from(len).ok()?.checked_next_multiple_of(page)?;
        let region = MmapRegion::from_file(FileOffset::new(file, 0), len).ok()?;
        let slot = Slot::register(region.as_ptr() as usize, len, page)?;
        Some(Map { slot, region })
    }

    fn intact(&self) -> Result<(), RingFault> {
        if self.slot.is_lost() { Err(RingFault::Shrunk) } else { Ok(()) }
    }

    #[inline]
    fn prefetch(&self, at: usize, len: usize, write: bool) {
        for byte in (at..at + len).step_by(LINE) {
            match self.region.get_atomic_ref::<AtomicU8>(byte) {
                Ok(byte) if write => culvert_flow::prefetch_to_write(byte),
                Ok(byte) => culvert_flow::prefetch(byte),
                Err(_) => return,
            }
        }
    }

    fn read(&self, at: usize, into: &mut [u8]) -> Result<(), RingFault> {
        self.region.get_slice(at, into.len()).map_err(|_| RingFault::Unmapped)?.copy_to(into);
        self.intact()
    }

    fn write(&self, at: usize, from: &[u8]) -> Result<(), RingFault> {
        self.region.get_slice(at, from.len()).map_err(|_| RingFault::Unmapped)?.copy_from(from);
        self.intact()
    }
}

struct Region {
    about: Description,
    map: Arc<Map>,
}

/// All regions.
pub(super) struct Memory {
    regions: Vec<Region>,
}

impl Memory {
    /// Maps regions. `None`: one of them cannot be, or overlaps another.
    pub(super) fn new(regions: Vec<(Description, OwnedFd)>) -> Option<Self> {
        let mut left = LONGEST;
        let map = |(about, file): (Description, OwnedFd)| {
            let len = about.offset.checked_add(about.len)?;
            left = left.checked_sub(len)?;
            let map = Arc::new(Map::new(File::from(file), len)?);
            Some(Region { about, map })
        };
        let regions = regions.into_iter().map(map).collect::<Option<Vec<Region>>>()?;
        let mut ranges: Vec<(u64, u64)> = regions.iter().map(|r| (r.about.guest, r.about.len)).collect();
        ranges.sort_unstable();
        let apart =
            |pair: &[(u64, u64)]| pair[0].0.checked_add(pair[0].1).is_some_and(|end| end <= pair[1].0);
        ranges.windows(2).all(apart).then_some(Memory { regions })
    }

    /// The map, the place in it and how many bytes of it there are for a guest's address.
    fn find(&self, address: u64) -> Result<(&Map, usize, usize), RingFault> {
        for Region { about, map } in &self.regions {
            if let Some(offset) = address.checked_sub(about.guest).filter(|offset| *offset < about.len) {
                return Ok((map, (about.offset + offset) as usize, (about.len - offset) as usize));
            }
        }
        Err(RingFault::Unmapped)
    }

    /// Copies from a guest's address.
    pub(super) fn read(&self, mut address: u64, mut into: &mut [u8]) -> Result<(), RingFault> {
        while !into.is_empty() {
            let (map, at, room) = self.find(address)?;
            let (now, rest) = into.split_at_mut(room.min(into.len()));
            map.read(at, now)?;
            address = address.checked_add(now.len() as u64).ok_or(RingFault::Unmapped)?;
            into = rest;
        }
        Ok(())
    }

    /// Calls the first lines of a guest's bytes into the cache, to be read or to be written to, if they are there.
    #[inline]
    pub(super) fn prefetch(&self, address: u64, len: u32, write: bool) {
        if let Ok((map, at, room)) = self.find(address) {
            map.prefetch(at, room.min(len as usize).min(PREFETCHED), write);
        }
    }

    /// Copies to a guest's address.
    pub(super) fn write(&self, mut address: u64, mut from: &[u8]) -> Result<(), RingFault> {
        while !from.is_empty() {
            let (map, at, room) = self.find(address)?;
            let (now, rest) = from.split_at(room.min(from.len()));
            map.write(at, now)?;
            address = address.checked_add(now.len() as u64).ok_or(RingFault::Unmapped)?;
            from = rest;
        }
        Ok(())
    }

    /// `len` bytes at an address of the VMM's, which lie in one region.
    pub(super) fn place(&self, user: u64, len: usize) -> Result<Place, RingFault> {
        let within = |Region { about, map }: &Region| {
            let offset = user.checked_sub(about.user)?;
            let end = offset.checked_add(len as u64).filter(|end| *end <= about.len)?;
            let at = (about.offset + end) as usize - len;
            Some(Place { map: Arc::clone(map), at, len })
        };
        self.regions.iter().find_map(within).ok_or(RingFault::Unmapped)
    }
}

/// A part of a ring.
pub(super) struct Place {
    map: Arc<Map>,
    at: usize,
    len: usize,
}

impl Place {
    fn check(&self, at: usize, len: usize) -> Result<usize, RingFault> {
        if at + len <= self.len { Ok(self.at + at) } else { Err(RingFault::Unmapped) }
    }

    /// A few bytes, without the detour of a copy of unknown length.
    #[inline]
    pub(super) fn read<T: ByteValued>(&self, at: usize) -> Result<T, RingFault> {
        let at = self.check(at, size_of::<T>())?;
        let value = self.map.region.get_ref::<T>(at).map_err(|_| RingFault::Unmapped)?.load();
        self.map.intact().map(|()| value)
    }

    #[inline]
    pub(super) fn write<T: ByteValued>(&self, at: usize, value: T) -> Result<(), RingFault> {
        let at = self.check(at, size_of::<T>())?;
        self.map.region.get_ref::<T>(at).map_err(|_| RingFault::Unmapped)?.store(value);
        self.map.intact()
    }

    /// Calls a few bytes into the cache, to be read or to be written to.
    #[inline]
    pub(super) fn prefetch(&self, at: usize, write: bool) {
        if let Ok(at) = self.check(at, 1) {
            self.map.prefetch(at, 1, write);
        }
    }

    /// What is read after this is at least as new.
    #[inline]
    pub(super) fn load(&self, at: usize) -> Result<u16, RingFault> {
        let at = self.check(at, 2)?;
        let word = self.map.region.get_atomic_ref::<AtomicU16>(at).map_err(|_| RingFault::Setup)?;
        let word = word.load(Ordering::Acquire);
        self.map.intact().map(|()| u16::from_le(word))
    }

    /// What was written before this is seen by who sees it.
    pub(super) fn store(&self, at: usize, word: u16) -> Result<(), RingFault> {
        let at = self.check(at, 2)?;
        let place = self.map.region.get_atomic_ref::<AtomicU16>(at).map_err(|_| RingFault::Setup)?;
        place.store(word.to_le(), Ordering::Release);
        self.map.intact()
    }
}
