//! The rings that an XDP socket shares with the kernel (af_xdp.rst): fill, receive, transmit, completion.
//!
//! A ring has one producer and one consumer, and we are one of them; each writes its own index only. The rings say which
//! side owns a chunk of the UMEM: the kernel does from the time the chunk is put into the fill or transmit ring until it
//! comes back in the receive or completion ring. The kernel is trusted to keep to that. Offsets that it hands us are checked
//! against the UMEM nevertheless.
#![allow(unsafe_code, reason = "memory shared with the kernel is reached through mappings")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::net::xdp::XdpRingOffset;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sys::Mapping;

/// A descriptor of a frame, or of a part of one: the kernel's `struct xdp_desc`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, PartialEq, Eq)]
#[repr(C)]
pub(super) struct XdpDesc {
    /// Offset in the UMEM.
    pub(super) addr: u64,
    pub(super) len: u32,
    /// [`CONTINUES`](Self::CONTINUES) or 0.
    pub(super) options: u32,
}

impl XdpDesc {
    /// The next descriptor continues the frame.
    pub(super) const CONTINUES: u32 = libc::XDP_PKT_CONTD;
}

/// A mapped ring of items `T`, and the offsets of its parts.
struct Ring<T> {
    map: Mapping,
    producer: usize,
    consumer: usize,
    flags: Option<usize>,
    items: usize,
    /// A power of two.
    size: u32,
    kind: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Ring<T> {
    /// Maps a ring of the socket, at its file's `offset`; `offsets` are those of the parts.
    fn map(socket: BorrowedFd<'_>, offset: u64, offsets: &XdpRingOffset, size: u32) -> io::Result<Self> {
        let offset_of = |at: u64| usize::try_from(at).map_err(|_| io::ErrorKind::InvalidData);
        let items = offset_of(offsets.desc)?;
        let map = Mapping::of_socket(socket, offset, items + size as usize * size_of::<T>())?;
        let flags = offsets.flags.map(offset_of).transpose()?;
        let (producer, consumer) = (offset_of(offsets.producer)?, offset_of(offsets.consumer)?);
        let words = [producer, consumer, flags.unwrap_or(0)];
        let fit = words.iter().all(|at| at.is_multiple_of(4) && map.part(*at, 4).is_some());
        if !fit || !items.is_multiple_of(align_of::<T>()) || !size.is_power_of_two() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Ring { map, producer, consumer, flags, items, size, kind: PhantomData })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `map` has seen that the word lies within the mapping, aligned; both sides access it as an atomic, and it
        // lives as long as the mapping.
        unsafe { AtomicU32::from_ptr(self.map.base().as_ptr().add(at).cast()) }
    }

    fn item(&self, index: u32) -> *mut T {
        let n = (index & (self.size - 1)) as usize;
        // SAFETY: the mapping has `size` items from `items` on.
        unsafe { self.map.base().as_ptr().add(self.items).cast::<T>().add(n) }
    }
}

/// A ring into which we put items.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Index of the next item; wraps around at 2^32.
    next: u32,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Producer<T> {
    /// See [`Consumer::map`].
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        offset: u64,
        offsets: &XdpRingOffset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Producer { ring: Ring::map(socket, offset, offsets, size)?, next: 0 })
    }

    /// Number of items that the kernel has not taken yet.
    pub(super) fn pending(&self) -> u32 {
        self.next.wrapping_sub(self.ring.word(self.ring.consumer).load(Ordering::Acquire))
    }

    /// Number of items for which there is room.
    pub(super) fn room(&self) -> u32 {
        self.ring.size.saturating_sub(self.pending())
    }

    /// Puts an item, which the kernel sees after [`publish`](Self::publish). `false`: there is no room.
    #[must_use]
    pub(super) fn put(&mut self, item: T) -> bool {
        let fits = self.room() > 0;
        if fits {
            // SAFETY: an item of the ring that is ours, since the consumer is behind it or a whole turn ahead.
            unsafe { self.ring.item(self.next).write(item) };
            self.next = self.next.wrapping_add(1);
        }
        fits
    }

    /// Makes all items visible to the kernel.
    pub(super) fn publish(&mut self) {
        self.ring.word(self.ring.producer).store(self.next, Ordering::Release);
    }

    /// Takes the last item back. The kernel must not have read the ring since it was published.
    pub(super) fn withdraw(&mut self) -> Option<T> {
        if self.pending() == 0 {
            return None;
        }
        self.next = self.next.wrapping_sub(1);
        self.publish();
        // SAFETY: an item that we have put there, and that is ours again.
        Some(unsafe { self.ring.item(self.next).read() })
    }

    /// Whether the kernel needs a system call to notice published items (`XDP_RING_NEED_WAKEUP`).
    pub(super) fn needs_wakeup(&self) -> bool {
        // The kernel sets the flag, then reads the ring once more: one of the two sides sees the other.
        fence(Ordering::SeqCst);
        let flags = self.ring.flags.map_or(0, |at| self.ring.word(at).load(Ordering::Acquire));
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring from which we take items.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    next: u32,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Consumer<T> {
    /// Maps a ring of `size` items at `offset` of the socket's file; `offsets` are those of its parts.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        offset: u64,
        offsets: &XdpRingOffset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Consumer { ring: Ring::map(socket, offset, offsets, size)?, next: 0 })
    }

    /// The item `ahead` places behind the next one, if it is there.
    pub(super) fn peek(&self, ahead: u32) -> Option<T> {
        let available = self.ring.word(self.ring.producer).load(Ordering::Acquire).wrapping_sub(self.next);
        if ahead >= available.min(self.ring.size) {
            return None;
        }
        // SAFETY: an item of the ring, which is ours until it is released.
        Some(unsafe { self.ring.item(self.next.wrapping_add(ahead)).read() })
    }

    /// Releases `n` items that [`peek`](Self::peek) has returned.
    pub(super) fn release(&mut self, n: u32) {
        self.next = self.next.wrapping_add(n);
        self.ring.word(self.ring.consumer).store(self.next, Ordering::Release);
    }
}
