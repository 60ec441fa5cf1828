//! The driver's side of a split virtqueue (virtio 1.2, 2.7), as a poll-mode driver works it: no interrupts, a kick only where
//! the device asks for one.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::memory::Memory;

/// Descriptors of a ring, as QEMU has them if nobody says otherwise.
pub const SIZE: u16 = 256;
/// Bytes of a buffer.
pub const BUFFER: usize = 2048;
/// Bytes of a ring with its buffers.
pub const LEN: usize = BUFFERS + SIZE as usize * BUFFER;
/// Where its parts are: descriptors come first.
pub const AVAILABLE: usize = 0x1000;
/// Where the device gives back.
pub const USED: usize = 0x2000;
const BUFFERS: usize = 0x4000;

/// `VIRTQ_DESC_F_WRITE`, `VIRTQ_AVAIL_F_NO_INTERRUPT`, `VIRTQ_USED_F_NO_NOTIFY`.
const WRITE: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// A ring with a buffer for each descriptor.
pub struct Ring {
    memory: Arc<Memory>,
    /// Where it begins.
    at: usize,
    /// The guest's address of its memory.
    base: u64,
    /// Next entries of the available and of the used ring.
    next: u16,
    seen: u16,
    /// Tells the device to look.
    pub kick: EventFd,
    /// The device's interrupt, which is never asked for.
    pub call: EventFd,
    /// Kicks that the device asked for.
    pub kicks: u64,
}

impl Ring {
    /// At an offset of a guest's memory that begins at its address `base`.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn new(memory: &Arc<Memory>, at: usize, base: u64) -> std::io::Result<Self> {
        let (kick, call) = (EventFd::new(EFD_NONBLOCK)?, EventFd::new(EFD_NONBLOCK)?);
        let ring = Ring { memory: Arc::clone(memory), at, base, next: 0, seen: 0, kick, call, kicks: 0 };
        ring.memory.store(at + AVAILABLE, NO_INTERRUPT);
        Ok(ring)
    }

    /// Where the buffer of a descriptor is.
    pub fn buffer(&self, index: u16) -> usize {
        self.at + BUFFERS + usize::from(index % SIZE) * BUFFER
    }

    /// Writes a descriptor, of one for the device to write to or to read from.
    #[inline(always)]
    fn describe(&self, index: u16, len: usize, device_writes: bool) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(self.base + self.buffer(index) as u64).to_le_bytes());
        bytes[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        let flags = if device_writes { WRITE } else { 0 };
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        self.memory.write(self.at + 16 * usize::from(index % SIZE), &bytes);
    }

    #[inline(always)]
    fn put(&mut self, index: u16) {
        let slot = usize::from(self.next % SIZE);
        self.memory.write(self.at + AVAILABLE + 4 + 2 * slot, &index.to_le_bytes());
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the device what was put there (2.7.13).
    #[inline(always)]
    fn publish(&mut self) {
        self.memory.store(self.at + AVAILABLE + 2, self.next);
        fence(Ordering::SeqCst);
        if self.memory.load(self.at + USED) & NO_NOTIFY == 0 {
            self.kicks += 1;
            // A counter that is full has not been read: nothing is lost.
            let _kicked = self.kick.write(1);
        }
    }

    /// What the device has given back: a descriptor and how much it has written.
    #[inline(always)]
    fn used(&mut self, end: u16) -> Option<(u16, u32)> {
        if self.seen == end {
            return None;
        }
        let slot = usize::from(self.seen % SIZE);
        let element: [u8; 8] = self.memory.read(self.at + USED + 4 + 8 * slot);
        let [i0, i1, _, _, l0, l1, l2, l3] = element;
        self.seen = self.seen.wrapping_add(1);
        Some((u16::from_le_bytes([i0, i1]), u32::from_le_bytes([l0, l1, l2, l3])))
    }

    fn used_index(&self) -> u16 {
        self.memory.load(self.at + USED + 2)
    }

    /// In the place of a device that costs nothing: gives back all that is available, with `written` bytes in each.
    pub fn serve(&self, written: u32) {
        let (mut done, end) = (self.used_index(), self.memory.load(self.at + AVAILABLE + 2));
        self.memory.store(self.at + USED, NO_NOTIFY);
        while done != end {
            let slot = usize::from(done % SIZE);
            let [a, b] = self.memory.read(self.at + AVAILABLE + 4 + 2 * slot);
            let [l0, l1, l2, l3] = written.to_le_bytes();
            self.memory.write(self.at + USED + 4 + 8 * slot, &[a, b, 0, 0, l0, l1, l2, l3]);
            done = done.wrapping_add(1);
        }
        self.memory.store(self.at + USED + 2, done);
    }
}

/// A ring on which the guest sends.
pub struct Transmit {
    /// The ring.
    pub ring: Ring,
    free: Vec<u16>,
    /// Frames that the device has taken.
    pub taken: u64,
}

impl Transmit {
    /// All buffers are free.
    pub fn new(ring: Ring) -> Self {
        Transmit { ring, free: (0..SIZE).rev().collect(), taken: 0 }
    }

    /// Takes back what the device is done with.
    #[inline]
    pub fn reclaim(&mut self) {
        let end = self.ring.used_index();
        while let Some((index, _)) = self.ring.used(end) {
            self.free.push(index);
            self.taken += 1;
        }
    }

    /// Sends up to `most` frames of `len` bytes, header and all, which `write` writes to the front of their buffers. Returns how
    /// many found room.
    #[inline]
    pub fn send(&mut self, most: usize, len: usize, mut write: impl FnMut(&Memory, usize)) -> usize {
        self.reclaim();
        let count = self.free.len().min(most);
        for index in self.free.drain(self.free.len() - count..) {
            write(&self.ring.memory, self.ring.buffer(index));
            self.ring.describe(index, len, false);
            self.ring.put(index);
        }
        if count > 0 {
            self.ring.publish();
        }
        count
    }

    /// Frames that the device has yet to take.
    pub fn under_way(&self) -> usize {
        usize::from(SIZE) - self.free.len()
    }
}

/// A ring on which the guest receives.
pub struct Receive {
    /// The ring.
    pub ring: Ring,
    /// Frames that have come, and their bytes with headers.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Receive {
    /// All buffers are the device's.
    pub fn new(mut ring: Ring) -> Self {
        for index in 0..SIZE {
            ring.describe(index, BUFFER, true);
            ring.put(index);
        }
        ring.memory.store(ring.at + AVAILABLE + 2, ring.next);
        Receive { ring, frames: 0, bytes: 0 }
    }

    /// Shows `look` where each frame begins that has come, header first, and how long it is; then the buffers are the device's
    /// again. Returns how many there were.
    #[inline]
    pub fn take(&mut self, mut look: impl FnMut(&Memory, usize, u32)) -> usize {
        let (end, before) = (self.ring.used_index(), self.frames);
        while let Some((index, len)) = self.ring.used(end) {
            look(&self.ring.memory, self.ring.buffer(index), len);
            self.frames += 1;
            self.bytes += u64::from(len);
            self.ring.put(index);
        }
        let count = (self.frames - before) as usize;
        if count > 0 {
            self.ring.publish();
        }
        count
    }
}
