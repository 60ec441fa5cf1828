//! A memory mapping of the connection file, as atomic words.
#![allow(unsafe_code, reason = "a shared mapping, accessed as atomic words")]

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use mmap_rs::{MmapFlags, MmapMut, MmapOptions};

/// The words of a file that one daemon writes. A store is in the file at once, even if the daemon is killed right after.
pub(super) struct Mapping {
    map: MmapMut,
    words: usize,
}

impl Mapping {
    /// Maps the first `words` words of a file. Only words with allocated blocks may be accessed: a store to a hole ends the
    /// process (SIGBUS) if the file system is full.
    pub(super) fn new(file: &File, words: usize) -> io::Result<Self> {
        let failed = |e: mmap_rs::Error| io::Error::other(format!("mapping {words} words: {e}"));
        let options =
            MmapOptions::new(words * size_of::<u64>()).map_err(failed)?.with_flags(MmapFlags::SHARED);
        // SAFETY: the memory is accessed only as atomic words, and every value of them is valid, so writes of another
        // process do no harm. The file has this length and nothing shortens it: it is new, private to this user, and is
        // not published yet.
        let map = unsafe { options.with_file(file, 0) }.map_mut().map_err(failed)?;
        Ok(Mapping { map, words })
    }

    /// All words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `words` words, starts at a page boundary and so is aligned, and lives as long as `self`;
        // nothing else in this process refers to it.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.words) }
    }
}
