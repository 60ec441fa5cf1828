//! A file's words in memory.
#![allow(unsafe_code, reason = "a shared mapping, seen as words that are read and written as wholes")]

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use mmap_rs::{MmapFlags, MmapMut, MmapOptions};

/// The words of a file that one daemon writes: what it stores is in the file at once, whatever becomes of the daemon.
pub(super) struct Mapping {
    map: MmapMut,
    words: usize,
}

impl Mapping {
    /// Maps the first `words` words of a file that has them. What lies beyond the blocks that the file has got is not to be
    /// touched: the system may have no room for it.
    pub(super) fn new(file: &File, words: usize) -> io::Result<Self> {
        let failed = |e: mmap_rs::Error| io::Error::other(format!("mapping {words} words: {e}"));
        let options =
            MmapOptions::new(words * size_of::<u64>()).map_err(failed)?.with_flags(MmapFlags::SHARED);
        // SAFETY: the memory is only ever seen as atomic words, of which any value is valid, so that it does no harm if
        // another process writes them. Its length is the file's: nobody shortens it, it is ours alone and has no name yet.
        let map = unsafe { options.with_file(file, 0) }.map_mut().map_err(failed)?;
        Ok(Mapping { map, words })
    }

    /// All words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many words, begins at a page and so is aligned, and lives as long as `self`; nothing
        // else in this process refers to it.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.words) }
    }
}
