//! `DmaBuffer`: memory that a device reads and writes at an address of its own (IOVA).

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use crate::memory::SharedMemory;
use crate::{Error, Result};

/// The pages that DMA memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Pages of 4 KiB.
    Normal,
    /// Pages of 2 MiB if the host has some free, else pages of 4 KiB.
    PreferHuge,
}

/// A device's DMA address space, from which dropped buffers are unmapped.
pub(crate) trait DmaSpace: Send + Sync {
    fn unmap(&self, iova: u64, len: usize);
}

struct Shared {
    memory: Arc<SharedMemory>,
    iova: u64,
    space: Option<Arc<dyn DmaSpace>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(space) = &self.space {
            space.unmap(self.iova, self.memory.len());
        }
    }
}

/// Memory that a device and its driver access concurrently. Clones share it; dropping the last one unmaps it.
///
/// Copies ([`DmaBuffer::read_at`], [`DmaBuffer::write_at`]) are not ordered against the device. Order comes from
/// ring indices: read the device's index through an atomic with `Acquire` before reading what it covers, write ours
/// with `Release` after writing what it covers. PCI devices use little-endian values: convert with `from_le`.
#[derive(Clone)]
pub struct DmaBuffer(Arc<Shared>);

impl DmaBuffer {
    /// Memory that no device has mapped, with an address of the caller's choice: for tests of ring code.
    ///
    /// # Errors
    /// [`Error::Memory`] if the host has none left.
    pub fn detached(iova: u64, len: usize) -> Result<Self> {
        let memory = Arc::new(allocate(len, PageKind::Normal)?);
        Ok(Self(Arc::new(Shared { memory, iova, space: None })))
    }

    pub(crate) fn mapped(memory: Arc<SharedMemory>, iova: u64, space: Arc<dyn DmaSpace>) -> Self {
        Self(Arc::new(Shared { memory, iova, space: Some(space) }))
    }

    /// The device's address of the first byte.
    #[must_use]
    pub fn iova(&self) -> u64 {
        self.0.iova
    }

    /// The length in bytes: the requested length, rounded up to whole pages.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no buffer is empty")]
    pub fn len(&self) -> usize {
        self.0.memory.len()
    }

    /// The memory's file, to share it with another process.
    #[must_use]
    pub fn file(&self) -> &File {
        self.0.memory.file()
    }

    fn check(&self, offset: usize, len: usize) -> Result<()> {
        if self.0.memory.contains(offset, len) {
            return Ok(());
        }
        let thing = format!("DMA buffer at {:#x}", self.0.iova);
        Err(Error::OutOfRange { thing, offset: offset as u64, len: len as u64, size: self.len() as u64 })
    }

    /// Copies out of the buffer.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the range is not inside the buffer.
    pub fn read_at(&self, offset: usize, data: &mut [u8]) -> Result<()> {
        self.check(offset, data.len())?;
        self.0.memory.copy_out(offset, data);
        Ok(())
    }

    /// Copies into the buffer.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the range is not inside the buffer.
    pub fn write_at(&self, offset: usize, data: &[u8]) -> Result<()> {
        self.check(offset, data.len())?;
        self.0.memory.copy_in(offset, data);
        Ok(())
    }

    /// A 16-bit word in the buffer.
    ///
    /// # Panics
    /// If it is not inside the buffer or not aligned: offsets of ring fields come from the driver's own layout, never
    /// from the device.
    #[must_use]
    pub fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        self.0.memory.atomic_u16(offset)
    }

    /// A 32-bit word in the buffer.
    ///
    /// # Panics
    /// As [`DmaBuffer::atomic_u16`].
    #[must_use]
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        self.0.memory.atomic_u32(offset)
    }

    /// A 64-bit word in the buffer.
    ///
    /// # Panics
    /// As [`DmaBuffer::atomic_u16`].
    #[must_use]
    pub fn atomic_u64(&self, offset: usize) -> &AtomicU64 {
        self.0.memory.atomic_u64(offset)
    }
}

impl AsFd for DmaBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.memory.file().as_fd()
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaBuffer({:#x}, {:#x} bytes)", self.iova(), self.len())
    }
}

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// Allocates zeroed memory in whole pages, of a length that nobody can change.
pub(crate) fn allocate(len: usize, pages: PageKind) -> Result<SharedMemory> {
    allocate_unsealed(len, pages)?.seal()
}

/// As [`allocate`], without a seal.
pub(crate) fn allocate_unsealed(len: usize, pages: PageKind) -> Result<SharedMemory> {
    let rounded = |page: usize| {
        let problem = "the length is zero or beyond the address space";
        let len = len.checked_next_multiple_of(page).filter(|l| *l > 0);
        len.ok_or(Error::Memory { len: 0, problem: problem.into() })
    };
    if pages == PageKind::PreferHuge
        && let Ok(memory) = SharedMemory::new(rounded(HUGE_PAGE)?, true)
    {
        return Ok(memory);
    }
    SharedMemory::new(rounded(PAGE)?, false)
}

#[cfg(test)]
mod tests;
