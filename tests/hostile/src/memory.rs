//! A guest's memory: a file, read and written by system calls, so that it can shrink or be replaced beneath the device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

/// Name of the memory files, by which a process's descriptors and mappings of them are found.
pub const NAME: &str = "hostile-guest";
/// Where the memory lies for the device.
pub const GUEST: u64 = 0x1_0000_0000;
/// Where it lies for the VMM, which is what vhost-user names vrings by.
pub const USER: u64 = 0x7f00_0000_0000;

/// A memory file.
pub struct Memory {
    file: File,
    len: u64,
}

impl Memory {
    /// Zeroed memory in a memfd.
    ///
    /// # Errors
    /// The system has none.
    pub fn new(len: u64) -> io::Result<Self> {
        let file = File::from(memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.set_len(len)?;
        Ok(Memory { file, len })
    }

    /// Length that it was made with.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it was made without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Changes the file's length.
    ///
    /// # Errors
    /// The file is sealed.
    pub fn resize(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Frees the pages of a range; they read as zero afterwards.
    ///
    /// # Errors
    /// The file is sealed.
    pub fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, at, len)?)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// The system has no memory.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Writes a 16-bit word.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn store(&self, at: u64, word: u16) -> io::Result<()> {
        self.write(at, &word.to_le_bytes())
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// The file is shorter by now.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    /// Reads a 16-bit word.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn load(&self, at: u64) -> io::Result<u16> {
        let mut word = [0; 2];
        self.read(at, &mut word)?;
        Ok(u16::from_le_bytes(word))
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
