//! The UMEM of an XDP socket: the memory that holds its frames (af_xdp.rst).
#![allow(unsafe_code, reason = "memory shared with the kernel is reached through mappings")]

use std::io;
use std::ptr;

use crate::sys::Mapping;

/// Memory for frames, in chunks of one size.
pub(super) struct Umem {
    map: Mapping,
}

impl Umem {
    /// Allocates `len` bytes, beginning on a page.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        Ok(Umem { map: Mapping::anonymous(len)? })
    }

    /// Address and length, to register it with a socket.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.map.base().as_ptr().expose_provenance() as u64, self.map.len() as u64)
    }

    /// Copies from offset `at`. `false`: the range does not lie within the UMEM.
    #[must_use]
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> bool {
        let Some(from) = usize::try_from(at).ok().and_then(|at| self.map.part(at, into.len())) else {
            return false;
        };
        // SAFETY: the place is within the mapping, which no reference of ours is ever made to, so that it lies apart from
        // `into`; the kernel does not write to a chunk that is ours.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        true
    }

    /// Copies to offset `at`. `false`: the range does not lie within the UMEM.
    #[must_use]
    pub(super) fn write(&mut self, at: u64, from: &[u8]) -> bool {
        let Some(into) = usize::try_from(at).ok().and_then(|at| self.map.part(at, from.len())) else {
            return false;
        };
        // SAFETY: as in `read`; a chunk that is ours is not read by the kernel either.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), into.as_ptr(), from.len()) };
        true
    }
}
