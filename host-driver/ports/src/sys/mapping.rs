//! Memory mapped from the kernel: the rings of packet sockets and XDP sockets, and the UMEM.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use culvert_switch::packet_thread::assert_may_wait;

/// A mapping, unmapped when it is dropped.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, and the kernel does not care which thread uses it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a socket's ring, at the socket's file offset `offset`.
    ///
    /// # Errors
    /// The socket has no ring of this length there, or memory is short.
    pub(crate) fn of_socket(socket: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Self::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd(), offset)
    }

    /// Maps `len` bytes of zeroed memory, which begin on a page.
    ///
    /// # Errors
    /// Memory is short.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        Self::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn new(len: usize, flags: libc::c_int, fd: libc::c_int, offset: u64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, offset.cast_signed()) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes at an offset. `None`: they do not lie within the mapping.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        // SAFETY: within the mapping, as was just checked.
        Some(unsafe { self.base.add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // The socket behind it is closed, too.
        assert_may_wait();
        // SAFETY: the mapping that `new` made; nothing refers to it any more, and the kernel has its own hold of the pages.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
