//! A guest's memory, shared with whoever serves its device: words and bytes at offsets, each access checked against the end.

#![allow(unsafe_code, reason = "memory that another process changes is only reached through pointers")]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{FileOffset, MmapRegion};

/// Memory in a file of its own.
#[derive(Debug)]
pub struct Memory {
    file: File,
    map: MmapRegion,
}

impl Memory {
    /// `len` bytes of zeros.
    ///
    /// # Errors
    /// There is not so much.
    pub fn new(len: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, len as u64)?;
        Memory::of(file, len)
    }

    /// The first `len` bytes of a file.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn of(file: File, len: usize) -> io::Result<Self> {
        let shared = FileOffset::new(file.try_clone()?, 0);
        let map = MmapRegion::from_file(shared, len).map_err(io::Error::other)?;
        Ok(Memory { file, map })
    }

    /// The file, for whoever serves the device.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it lies here.
    pub fn address(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.map.size()
    }

    #[inline(always)]
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(len <= self.map.size() && at <= self.map.size() - len, "{len} bytes at {at} of the memory");
        // SAFETY: the place lies in the mapping, as was just seen.
        unsafe { self.map.as_ptr().add(at) }
    }

    #[inline(always)]
    fn word(&self, at: usize) -> &AtomicU16 {
        assert!(at.is_multiple_of(2), "a word at {at}");
        let place = self.at(at, 2);
        // SAFETY: the place lies in the mapping, which lives as long as `self`, and is aligned, since the mapping is.
        // Others change it atomically only.
        unsafe { AtomicU16::from_ptr(place.cast()) }
    }

    /// A word, before everything that is read after it.
    #[inline(always)]
    pub fn load(&self, at: usize) -> u16 {
        self.word(at).load(Ordering::Acquire)
    }

    /// Writes a word, after everything that was written before it.
    #[inline(always)]
    pub fn store(&self, at: usize, word: u16) {
        self.word(at).store(word, Ordering::Release);
    }

    /// Writes eight bytes at once.
    #[inline(always)]
    pub fn store_long(&self, at: usize, long: u64) {
        assert!(at.is_multiple_of(8), "eight bytes at {at}");
        let place = self.at(at, 8);
        // SAFETY: as for a word.
        unsafe { AtomicU64::from_ptr(place.cast()) }.store(long, Ordering::Relaxed);
    }

    /// Copies out of it.
    #[inline(always)]
    pub fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        // SAFETY: so many bytes lie in the mapping, and any bytes make an array.
        unsafe { ptr::read_volatile(self.at(at, N).cast::<[u8; N]>()) }
    }

    /// Copies into it.
    #[inline(always)]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let place = self.at(at, bytes.len());
        // SAFETY: so many bytes lie in the mapping. The ring's rules leave them to the driver until it hands them over, and
        // nothing here borrows from it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    }
}
