//! A packet socket's receive ring, TPACKET_V2 (packet_mmap.rst).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use super::mapping::Mapping;

/// The ring: slots of one size, each with a status word that says whether the kernel or the reader owns it.
pub(crate) struct PacketRing {
    map: Mapping,
    slots: usize,
    slot_len: usize,
}

impl PacketRing {
    /// Maps the ring that `socket` was given, which has exactly this size.
    pub(crate) fn map(socket: BorrowedFd<'_>, slots: usize, slot_len: usize) -> io::Result<Self> {
        assert!(slot_len.is_multiple_of(16) && slot_len >= libc::TPACKET2_HDRLEN && slots > 0);
        let map = Mapping::of_socket(socket, 0, slots * slot_len)?;
        Ok(PacketRing { map, slots, slot_len })
    }

    /// The slot after `n`: the first one after the last.
    pub(crate) fn after(&self, n: usize) -> usize {
        if n + 1 < self.slots { n + 1 } else { 0 }
    }

    fn status(&self, n: usize) -> &AtomicU32 {
        assert!(n < self.slots);
        // SAFETY: the place lies within the mapping by the assertion, and slots are aligned to 16 bytes.
        let word = unsafe { self.map.base().add(n * self.slot_len) };
        // SAFETY: the word lives as long as the mapping, and both sides access it as an atomic.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// Status and bytes of a slot, without the first four bytes, if it is ours.
    pub(crate) fn slot(&self, n: usize) -> Option<(u32, &[u8])> {
        let status = self.status(n).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: within the mapping, and behind the status, which alone may be accessed from both sides.
        let bytes = unsafe { self.map.base().add(n * self.slot_len + 4) };
        // SAFETY: the kernel has handed the slot over, and gets it back only by `release`, which needs this borrow to end.
        Some((status, unsafe { std::slice::from_raw_parts(bytes.as_ptr(), self.slot_len - 4) }))
    }

    /// Returns a slot that is ours to the kernel.
    pub(crate) fn release(&mut self, n: usize) {
        self.status(n).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}
