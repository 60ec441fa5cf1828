//! A guest's address space: ranges of its files, or of memory that only messages reach.

use std::sync::Arc;

use super::access::{GuestMemory, WordMemory};
use super::place::Place;
use super::region_table::{Region, RegionTable};
use crate::fault::MemoryFault;

/// Why a region cannot be added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// It is empty, wraps around, or reaches beyond its file's mapping.
    #[error("the region is empty, wraps around or reaches beyond its file's mapping")]
    Invalid,
    /// It overlaps another.
    #[error("the region overlaps another")]
    Overlap,
    /// Only a part of a region would be removed.
    #[error("the range splits a region")]
    Splits,
}

/// Regions by address. Copies only.
#[derive(Clone, Default)]
pub struct AddressSpace(RegionTable);

impl std::fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressSpace").field("regions", &self.len()).finish_non_exhaustive()
    }
}

impl AddressSpace {
    /// Nothing mapped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of regions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a region at an address.
    ///
    /// # Errors
    /// The region is invalid or overlaps another.
    pub fn insert(&mut self, start: u64, region: Region) -> Result<(), RegionError> {
        let last = last(start, region.size).ok_or(RegionError::Invalid)?;
        let end = region.offset.checked_add(region.size);
        if region.file.as_ref().is_some_and(|file| end.is_none_or(|end| end > file.len() as u64)) {
            return Err(RegionError::Invalid);
        }
        if self.0.overlaps(start, last) {
            return Err(RegionError::Overlap);
        }
        self.0.insert(start, region);
        Ok(())
    }

    /// Whether a range has an address of some region. An empty range and one that wraps around have none.
    pub fn overlaps(&self, start: u64, size: u64) -> bool {
        last(start, size).is_some_and(|last| self.0.overlaps(start, last))
    }

    /// Whether a whole range is mapped, in one region or several.
    pub fn contains(&self, start: u64, size: u64) -> bool {
        let (mut at, mut left) = (start, size);
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

    /// Removes the regions inside a range and returns how many bytes that were.
    ///
    /// # Errors
    /// The range is invalid, or has a part of a region only: nothing is removed.
    pub fn remove(&mut self, start: u64, size: u64) -> Result<u64, RegionError> {
        let last = last(start, size).ok_or(RegionError::Invalid)?;
        self.0.remove(start, last).ok_or(RegionError::Splits)
    }

    /// Removes all regions and returns how many bytes that were.
    pub fn clear(&mut self) -> u64 {
        std::mem::take(&mut self.0).bytes()
    }

    #[inline]
    fn find(&self, address: u64) -> Result<(&Region, u64), MemoryFault> {
        self.0.find(address).ok_or(MemoryFault::Unmapped)
    }

    /// Copies from memory; the range may span regions.
    ///
    /// # Errors
    /// Part of the range may not be read.
    #[inline]
    pub fn read(&self, mut address: u64, mut into: &mut [u8]) -> Result<(), MemoryFault> {
        while !into.is_empty() {
            let (region, inside) = self.find(address)?;
            if !region.read {
                return Err(MemoryFault::Denied);
            }
            let n = room(region, inside).min(into.len());
            let (now, rest) = into.split_at_mut(n);
            match &region.file {
                Some(file) => file.read((region.offset + inside) as usize, now)?,
                None => return Err(MemoryFault::Remote),
            }
            into = rest;
            address = advance(address, n, into.is_empty())?;
        }
        Ok(())
    }

    /// Copies to memory; the range may span regions. A fault may leave the range partly written.
    ///
    /// # Errors
    /// Part of the range may not be written.
    #[inline]
    pub fn write(&self, mut address: u64, mut from: &[u8]) -> Result<(), MemoryFault> {
        while !from.is_empty() {
            let (region, inside) = self.find(address)?;
            if !region.write {
                return Err(MemoryFault::Denied);
            }
            let n = room(region, inside).min(from.len());
            let (now, rest) = from.split_at(n);
            match &region.file {
                Some(file) => file.write((region.offset + inside) as usize, now)?,
                None => return Err(MemoryFault::Remote),
            }
            from = rest;
            address = advance(address, n, from.is_empty())?;
        }
        Ok(())
    }

    /// Reads a little-endian 16-bit word at once, with acquire ordering: ring indices.
    ///
    /// # Errors
    /// The word may not be read.
    pub fn load_u16(&self, address: u64) -> Result<u16, MemoryFault> {
        let (region, inside) = self.find(address)?;
        match &region.file {
            _ if !region.read => Err(MemoryFault::Denied),
            Some(file) if inside + 2 <= region.size => file.load_u16((region.offset + inside) as usize),
            _ => {
                let mut bytes = [0; 2];
                self.read(address, &mut bytes)?;
                Ok(u16::from_le_bytes(bytes))
            }
        }
    }

    /// Writes a little-endian 16-bit word at once, with release ordering: ring indices.
    ///
    /// # Errors
    /// The word may not be written.
    pub fn store_u16(&self, address: u64, value: u16) -> Result<(), MemoryFault> {
        let (region, inside) = self.find(address)?;
        match &region.file {
            _ if !region.write => Err(MemoryFault::Denied),
            Some(file) if inside + 2 <= region.size => {
                file.store_u16((region.offset + inside) as usize, value)
            }
            _ => self.write(address, &value.to_le_bytes()),
        }
    }

    /// Reads a little-endian 32-bit word at once, sequentially consistent: indices and flags of PF rings.
    ///
    /// # Errors
    /// The word may not be read.
    pub fn load_u32(&self, address: u64) -> Result<u32, MemoryFault> {
        let (region, inside) = self.find(address)?;
        match &region.file {
            _ if !region.read => Err(MemoryFault::Denied),
            Some(file) if inside + 4 <= region.size => file.load_u32((region.offset + inside) as usize),
            _ => {
                let mut bytes = [0; 4];
                self.read(address, &mut bytes)?;
                Ok(u32::from_le_bytes(bytes))
            }
        }
    }

    /// Writes a little-endian 32-bit word at once, sequentially consistent.
    ///
    /// # Errors
    /// The word may not be written.
    pub fn store_u32(&self, address: u64, value: u32) -> Result<(), MemoryFault> {
        let (region, inside) = self.find(address)?;
        match &region.file {
            _ if !region.write => Err(MemoryFault::Denied),
            Some(file) if inside + 4 <= region.size => {
                file.store_u32((region.offset + inside) as usize, value)
            }
            _ => self.write(address, &value.to_le_bytes()),
        }
    }

    /// Prefetches the first cache lines of a range, to be read or to be written, if it lies in a file.
    #[inline]
    pub fn prefetch(&self, address: u64, len: u32, write: bool) {
        if let Some((region, inside)) = self.0.find(address)
            && let Some(file) = &region.file
        {
            file.prefetch((region.offset + inside) as usize, room(region, inside).min(len as usize), write);
        }
    }

    /// Looks up `len` bytes at an address, to be used while the region stays mapped.
    ///
    /// # Errors
    /// They do not lie in one region that has a file and may be read and written.
    pub fn place(&self, address: u64, len: usize) -> Result<Place, MemoryFault> {
        let (region, inside) = self.find(address)?;
        let file = region.file.as_ref().ok_or(MemoryFault::Unmapped)?;
        if !region.read || !region.write {
            return Err(MemoryFault::Denied);
        }
        if room(region, inside) < len {
            return Err(MemoryFault::Unmapped);
        }
        Ok(Place::new(Arc::clone(file), (region.offset + inside) as usize, len))
    }
}

impl GuestMemory for AddressSpace {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryFault> {
        AddressSpace::read(self, address, into)
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault> {
        AddressSpace::write(self, address, from)
    }

    fn prefetch(&self, address: u64, len: u32, write: bool) {
        AddressSpace::prefetch(self, address, len, write);
    }
}

impl WordMemory for AddressSpace {
    fn load_u16(&self, address: u64) -> Result<u16, MemoryFault> {
        AddressSpace::load_u16(self, address)
    }

    fn store_u16(&self, address: u64, value: u16) -> Result<(), MemoryFault> {
        AddressSpace::store_u16(self, address, value)
    }
}

/// Last address of a range.
fn last(start: u64, size: u64) -> Option<u64> {
    size.checked_sub(1).and_then(|more| start.checked_add(more))
}

/// Bytes of a region from an offset on.
#[inline]
fn room(region: &Region, inside: u64) -> usize {
    usize::try_from(region.size - inside).unwrap_or(usize::MAX)
}

#[inline]
fn advance(address: u64, by: usize, done: bool) -> Result<u64, MemoryFault> {
    match address.checked_add(by as u64) {
        Some(next) => Ok(next),
        None if done => Ok(0),
        None => Err(MemoryFault::Unmapped),
    }
}
