//! Memory shared with another process: words and bytes at offsets. Each access is bounds-checked.

#![allow(unsafe_code, reason = "memory that another process changes is only reached through pointers")]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{FileOffset, MmapRegion};

/// A mapped file.
#[derive(Debug)]
pub struct SharedMemory {
    file: File,
    map: MmapRegion,
}

impl SharedMemory {
    /// `len` bytes of zeros in a memfd.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    pub fn new(len: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, len as u64)?;
        SharedMemory::of(file, len)
    }

    /// The first `len` bytes of a file.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn of(file: File, len: usize) -> io::Result<Self> {
        let shared = FileOffset::new(file.try_clone()?, 0);
        let map = MmapRegion::from_file(shared, len).map_err(io::Error::other)?;
        Ok(SharedMemory { file, map })
    }

    /// The file, for the other process.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its address in this process.
    pub fn address(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// Its length in bytes.
    pub fn size(&self) -> usize {
        self.map.size()
    }

    #[inline(always)]
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(len <= self.map.size() && at <= self.map.size() - len, "{len} bytes at {at} of the memory");
        // SAFETY: the offset is in the mapping, as just checked.
        unsafe { self.map.as_ptr().add(at) }
    }

    #[inline(always)]
    fn word(&self, at: usize) -> &AtomicU16 {
        assert!(at.is_multiple_of(2), "a word at {at}");
        let place = self.at(at, 2);
        // SAFETY: the offset is in the mapping, which lives as long as `self`, and is aligned, since the mapping is.
        // The other process accesses the word atomically.
        unsafe { AtomicU16::from_ptr(place.cast()) }
    }

    /// Loads a word with acquire ordering.
    #[inline(always)]
    pub fn load(&self, at: usize) -> u16 {
        self.word(at).load(Ordering::Acquire)
    }

    /// Stores a word with release ordering.
    #[inline(always)]
    pub fn store(&self, at: usize, word: u16) {
        self.word(at).store(word, Ordering::Release);
    }

    /// Stores eight bytes atomically.
    #[inline(always)]
    pub fn store_long(&self, at: usize, long: u64) {
        assert!(at.is_multiple_of(8), "eight bytes at {at}");
        let place = self.at(at, 8);
        // SAFETY: as for a word.
        unsafe { AtomicU64::from_ptr(place.cast()) }.store(long, Ordering::Relaxed);
    }

    /// Copies bytes out of the memory.
    #[inline(always)]
    pub fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        // SAFETY: `N` bytes are in the mapping, and any bytes are a valid array.
        unsafe { ptr::read_volatile(self.at(at, N).cast::<[u8; N]>()) }
    }

    /// Copies bytes into the memory.
    #[inline(always)]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let place = self.at(at, bytes.len());
        // SAFETY: `bytes.len()` bytes are in the mapping. The ring's protocol leaves them to the driver until it offers them,
        // and nothing here borrows from them.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    }
}
