//! Memory that the kernel shares with an XDP socket (af_xdp.rst): the area in which frames lie, and rings of offsets in it.
//!
//! A ring has one producer and one consumer, of which we are one; each writes its own index alone. Which side a chunk of
//! the area belongs to is said by the rings: it is the kernel's while it is in the fill ring or in the transmit ring, or
//! has been taken from there and did not come back yet. The kernel is trusted to keep to that, but not to have a place lie
//! within the area: that is checked.
#![allow(unsafe_code, reason = "memory shared with the kernel is reached through mappings")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::net::xdp::XdpRingOffset;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A frame, or a piece of one: the kernel's `struct xdp_desc`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Piece {
    /// Where it begins in the area.
    pub(super) at: u64,
    pub(super) len: u32,
    /// [`CONTINUES`](Self::CONTINUES) or 0.
    pub(super) options: u32,
}

impl Piece {
    /// The frame goes on in the next piece.
    pub(super) const CONTINUES: u32 = libc::XDP_PKT_CONTD;
}

struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, and the kernel does not care which thread uses it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(len: usize, of: Option<(BorrowedFd<'_>, u64)>) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (flags, fd, offset) = match of {
            Some((socket, offset)) => (libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd(), offset),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
        };
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, offset.cast_signed()) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// The address of `len` bytes from `at` on. `None`: they do not lie within.
    fn part(&self, at: usize, len: usize) -> Option<NonNull<u8>> {
        if at > self.len || len > self.len - at {
            return None;
        }
        // SAFETY: within the mapping, as was just checked.
        Some(unsafe { self.base.add(at) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing refers to it any more, and the kernel has its own hold of the pages.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Where frames lie, in chunks of one size.
pub(super) struct Area {
    map: Mapping,
}

impl Area {
    /// An area of `len` bytes, which is on whole pages.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        Ok(Area { map: Mapping::new(len, None)? })
    }

    /// Its address and length, as the kernel is told them.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.map.base.as_ptr().expose_provenance() as u64, self.map.len as u64)
    }

    /// Copies from the area. `false`: it does not lie within.
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

    /// Copies into the area. `false`: it does not lie within.
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

/// What both sides of a ring have. The items are `T`.
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
    /// Maps the ring that the socket was given, at the file's `offset`; `offsets` says where in it is what.
    fn map(socket: BorrowedFd<'_>, offset: u64, offsets: &XdpRingOffset, size: u32) -> io::Result<Self> {
        let place = |at: u64| usize::try_from(at).map_err(|_| io::ErrorKind::InvalidData);
        let items = place(offsets.desc)?;
        let map = Mapping::new(items + size as usize * size_of::<T>(), Some((socket, offset)))?;
        let flags = offsets.flags.map(place).transpose()?;
        let (producer, consumer) = (place(offsets.producer)?, place(offsets.consumer)?);
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
        unsafe { AtomicU32::from_ptr(self.map.base.as_ptr().add(at).cast()) }
    }

    fn item(&self, index: u32) -> *mut T {
        let n = (index & (self.size - 1)) as usize;
        // SAFETY: the mapping has `size` items from `items` on.
        unsafe { self.map.base.as_ptr().add(self.items).cast::<T>().add(n) }
    }
}

/// A ring into which we put.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Where the next one is put: counted on for ever, and around.
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

    /// Items that the kernel has not taken yet.
    pub(super) fn waiting(&self) -> u32 {
        self.next.wrapping_sub(self.ring.word(self.ring.consumer).load(Ordering::Acquire))
    }

    /// For how many more there is room.
    pub(super) fn room(&self) -> u32 {
        self.ring.size.saturating_sub(self.waiting())
    }

    /// Puts one in, which the kernel sees after [`publish`](Self::publish). `false`: there is no room.
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

    /// Shows the kernel all that were put.
    pub(super) fn publish(&mut self) {
        self.ring.word(self.ring.producer).store(self.next, Ordering::Release);
    }

    /// Takes the last one back. The kernel must not have looked at the ring since it was published.
    pub(super) fn withdraw(&mut self) -> Option<T> {
        if self.waiting() == 0 {
            return None;
        }
        self.next = self.next.wrapping_sub(1);
        self.publish();
        // SAFETY: an item that we have put there, and that is ours again.
        Some(unsafe { self.ring.item(self.next).read() })
    }

    /// Whether the kernel has to be told of what was published.
    pub(super) fn needs_wakeup(&self) -> bool {
        // The kernel sets the flag and looks for items once more: one of both sides sees the other.
        fence(Ordering::SeqCst);
        let flags = self.ring.flags.map_or(0, |at| self.ring.word(at).load(Ordering::Acquire));
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring from which we take.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    next: u32,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Consumer<T> {
    /// Maps the ring that the socket was given, of `size` items: it is found at the `offset` of the socket's file, and in
    /// it the `offsets` of its parts.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        offset: u64,
        offsets: &XdpRingOffset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Consumer { ring: Ring::map(socket, offset, offsets, size)?, next: 0 })
    }

    /// The one that is `ahead` of the next one, if it is there.
    pub(super) fn look(&self, ahead: u32) -> Option<T> {
        let there = self.ring.word(self.ring.producer).load(Ordering::Acquire).wrapping_sub(self.next);
        if ahead >= there.min(self.ring.size) {
            return None;
        }
        // SAFETY: an item of the ring, which is ours until it is released.
        Some(unsafe { self.ring.item(self.next.wrapping_add(ahead)).read() })
    }

    /// Gives the room of `n` items back to the kernel: [`look`](Self::look) has shown them.
    pub(super) fn release(&mut self, n: u32) {
        self.next = self.next.wrapping_add(n);
        self.ring.word(self.ring.consumer).store(self.next, Ordering::Release);
    }
}
