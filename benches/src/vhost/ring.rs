//! The driver's side of a split virtqueue (virtio 1.2, 2.7) for a poll-mode driver: no interrupts, and kicks only if the device
//! asks for them.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::shared_memory::SharedMemory;

/// Descriptors of a ring: QEMU's default.
pub const SIZE: u16 = 256;
/// Bytes of a buffer.
pub const BUFFER: usize = 2048;
/// Bytes of a ring with its buffers.
pub const LEN: usize = BUFFERS + SIZE as usize * BUFFER;
/// Offset of the available ring; the descriptors are at 0.
pub const AVAILABLE: usize = 0x1000;
/// Offset of the used ring.
pub const USED: usize = 0x2000;
const BUFFERS: usize = 0x4000;

/// `VIRTQ_DESC_F_WRITE`, `VIRTQ_AVAIL_F_NO_INTERRUPT`, `VIRTQ_USED_F_NO_NOTIFY`.
const WRITE: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// A ring with a buffer for each descriptor.
pub struct Ring {
    memory: Arc<SharedMemory>,
    /// Its offset in the memory.
    at: usize,
    /// The guest's address of its memory.
    base: u64,
    /// Next entry of the available ring, and of the used ring.
    next: u16,
    seen: u16,
    /// Kicks the device.
    pub kick: EventFd,
    /// The device's interrupt, which is disabled.
    pub call: EventFd,
    /// Kicks that the device asked for.
    pub kicks: u64,
}

impl Ring {
    /// A ring at offset `at` of a guest's memory, which starts at the guest's address `base`.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn new(memory: &Arc<SharedMemory>, at: usize, base: u64) -> std::io::Result<Self> {
        let (kick, call) = (EventFd::new(EFD_NONBLOCK)?, EventFd::new(EFD_NONBLOCK)?);
        let ring = Ring { memory: Arc::clone(memory), at, base, next: 0, seen: 0, kick, call, kicks: 0 };
        ring.memory.store(at + AVAILABLE, NO_INTERRUPT);
        Ok(ring)
    }

    /// Offset of the buffer of a descriptor.
    pub fn buffer(&self, index: u16) -> usize {
        self.at + BUFFERS + usize::from(index % SIZE) * BUFFER
    }

    /// Writes a descriptor of its buffer.
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
    fn offer(&mut self, index: u16) {
        let slot = usize::from(self.next % SIZE);
        self.memory.write(self.at + AVAILABLE + 4 + 2 * slot, &index.to_le_bytes());
        self.next = self.next.wrapping_add(1);
    }

    /// Publishes the offered buffers to the device (2.7.13).
    #[inline(always)]
    fn publish(&mut self) {
        self.memory.store(self.at + AVAILABLE + 2, self.next);
        fence(Ordering::SeqCst);
        if self.memory.load(self.at + USED) & NO_NOTIFY == 0 {
            self.kicks += 1;
            // Fails if the counter is full; the device has an unread kick then.
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

    /// Acts as a device without cost: uses all available buffers, with `written` bytes in each.
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

/// The guest's transmit ring.
pub struct Transmit {
    /// The ring.
    pub ring: Ring,
    free: Vec<u16>,
    /// Frames that the device has taken.
    pub taken: u64,
}

impl Transmit {
    /// A ring whose buffers are all free.
    pub fn new(ring: Ring) -> Self {
        Transmit { ring, free: (0..SIZE).rev().collect(), taken: 0 }
    }

    /// Frees the buffers that the device has used.
    #[inline]
    pub fn reclaim(&mut self) {
        let end = self.ring.used_index();
        while let Some((index, _)) = self.ring.used(end) {
            self.free.push(index);
            self.taken += 1;
        }
    }

    /// Sends up to `most` frames of `len` bytes with the virtio header; `write` writes the beginning of each buffer. Returns the
    /// number of frames.
    #[inline]
    pub fn send(&mut self, most: usize, len: usize, mut write: impl FnMut(&SharedMemory, usize)) -> usize {
        self.reclaim();
        let count = self.free.len().min(most);
        for index in self.free.drain(self.free.len() - count..) {
            write(&self.ring.memory, self.ring.buffer(index));
            self.ring.describe(index, len, false);
            self.ring.offer(index);
        }
        if count > 0 {
            self.ring.publish();
        }
        count
    }

    /// Frames that the device has not used yet.
    pub fn in_flight(&self) -> usize {
        usize::from(SIZE) - self.free.len()
    }
}

/// The guest's receive ring.
pub struct Receive {
    /// The ring.
    pub ring: Ring,
    /// Received frames.
    pub frames: u64,
    /// Received bytes, with virtio headers.
    pub bytes: u64,
}

impl Receive {
    /// A ring that offers all buffers to the device.
    pub fn new(mut ring: Ring) -> Self {
        for index in 0..SIZE {
            ring.describe(index, BUFFER, true);
            ring.offer(index);
        }
        ring.memory.store(ring.at + AVAILABLE + 2, ring.next);
        Receive { ring, frames: 0, bytes: 0 }
    }

    /// Calls `look` with the offset and the length of each received frame, virtio header first, then offers the buffers again.
    /// Returns the number of frames.
    #[inline]
    pub fn take(&mut self, mut look: impl FnMut(&SharedMemory, usize, u32)) -> usize {
        let (end, before) = (self.ring.used_index(), self.frames);
        while let Some((index, len)) = self.ring.used(end) {
            look(&self.ring.memory, self.ring.buffer(index), len);
            self.frames += 1;
            self.bytes += u64::from(len);
            self.ring.offer(index);
        }
        let count = (self.frames - before) as usize;
        if count > 0 {
            self.ring.publish();
        }
        count
    }
}
