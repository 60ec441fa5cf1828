//! A place in a mapped file that was looked up once: a part of a ring.

use std::sync::Arc;

use vm_memory::ByteValued;

use super::mapped_file::MappedFile;
use crate::fault::MemoryFault;

/// Bytes of a mapped file, by offset.
pub struct Place {
    file: Arc<MappedFile>,
    at: usize,
    len: usize,
}

impl Place {
    /// `len` bytes at `at`, which lie in the file.
    pub(super) fn new(file: Arc<MappedFile>, at: usize, len: usize) -> Self {
        Place { file, at, len }
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) -> Result<usize, MemoryFault> {
        if offset + len <= self.len { Ok(self.at + offset) } else { Err(MemoryFault::Unmapped) }
    }

    /// Copies a value, without the detour of a copy of unknown length.
    ///
    /// # Errors
    /// It lies outside, or the file has shrunk.
    #[inline]
    pub fn read<T: ByteValued>(&self, offset: usize) -> Result<T, MemoryFault> {
        self.file.read_value(self.check(offset, size_of::<T>())?)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn write<T: ByteValued>(&self, offset: usize, value: T) -> Result<(), MemoryFault> {
        self.file.write_value(self.check(offset, size_of::<T>())?, value)
    }

    /// Reads a little-endian word, with acquire ordering.
    ///
    /// # Errors
    /// As [`read`](Self::read), or it is not aligned.
    #[inline]
    pub fn load_u16(&self, offset: usize) -> Result<u16, MemoryFault> {
        self.file.load_u16(self.check(offset, 2)?)
    }

    /// Writes a little-endian word, with release ordering.
    ///
    /// # Errors
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    pub fn store_u16(&self, offset: usize, value: u16) -> Result<(), MemoryFault> {
        self.file.store_u16(self.check(offset, 2)?, value)
    }

    /// Prefetches the cache line at an offset, to be read or to be written.
    #[inline]
    pub fn prefetch(&self, offset: usize, write: bool) {
        if let Ok(at) = self.check(offset, 1) {
            self.file.prefetch(at, 1, write);
        }
    }
}
