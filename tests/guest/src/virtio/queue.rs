//! `SplitQueue`: the driver's side of a split virtqueue (virtio 1.2, 2.7). It knows memory, no device.

use std::sync::atomic::{Ordering, fence};

use culvert_pci::DmaBuffer;

use crate::{Error, Result};

/// Descriptor flag: the chain continues at `next`.
const DESC_NEXT: u16 = 1;
/// Descriptor flag: the device writes into the buffer.
const DESC_WRITE: u16 = 2;
/// In the available ring's flags: no interrupt, please.
const AVAIL_NO_INTERRUPT: u16 = 1;
/// In the used ring's flags: no notification, please.
const USED_NO_NOTIFY: u16 = 1;

/// An element of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The first descriptor of the chain that the device is done with. Less than the queue's size.
    pub head: u16,
    /// How many bytes the device says it wrote.
    pub len: u32,
}

/// A split virtqueue.
///
/// Buffers are offered one by one and published in batches. Suppression of interrupts and notifications is by event
/// index if negotiated, by flags otherwise.
pub struct SplitQueue {
    memory: DmaBuffer,
    name: &'static str,
    size: u16,
    event_idx: bool,
    /// The available index after all buffers offered.
    offered: u16,
    /// The available index that the device knows.
    published: u16,
    /// The used index up to which elements were taken.
    taken: u16,
}

impl SplitQueue {
    /// How much memory a queue of this size takes.
    #[must_use]
    pub fn bytes(size: u16) -> usize {
        Self::used_offset(size) + 6 + 8 * usize::from(size)
    }

    fn used_offset(size: u16) -> usize {
        // The used ring is the device's: on cache lines of its own.
        (16 * usize::from(size) + 6 + 2 * usize::from(size)).next_multiple_of(64)
    }

    /// A queue in zeroed memory of at least [`SplitQueue::bytes`]. The size is a power of two.
    ///
    /// # Panics
    /// If the memory is too small or the size no power of two: the driver chose both.
    #[must_use]
    pub fn new(name: &'static str, memory: DmaBuffer, size: u16, event_idx: bool) -> Self {
        assert!(size.is_power_of_two() && memory.len() >= Self::bytes(size), "queue of {size} in {memory:?}");
        Self { memory, name, size, event_idx, offered: 0, published: 0, taken: 0 }
    }

    /// The number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Addresses of the descriptor table, the available ring and the used ring.
    #[must_use]
    pub fn addresses(&self) -> [u64; 3] {
        let base = self.memory.iova();
        [base, base + self.avail(0) as u64, base + self.used(0) as u64]
    }

    /// The queue's memory, for tests that spoil it.
    #[must_use]
    pub fn memory(&self) -> &DmaBuffer {
        &self.memory
    }

    fn avail(&self, offset: usize) -> usize {
        16 * usize::from(self.size) + offset
    }

    fn used(&self, offset: usize) -> usize {
        Self::used_offset(self.size) + offset
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    fn load(&self, offset: usize) -> u16 {
        u16::from_le(self.memory.atomic_u16(offset).load(Ordering::Acquire))
    }

    fn store(&self, offset: usize, value: u16) {
        self.memory.atomic_u16(offset).store(value.to_le(), Ordering::Release);
    }

    /// Writes a descriptor: a buffer, whether the device writes it, and the next of its chain.
    ///
    /// # Panics
    /// If the index is not less than the size.
    pub fn describe(&self, index: u16, iova: u64, len: u32, device_writes: bool, next: Option<u16>) {
        assert!(index < self.size, "descriptor {index} of {}", self.size);
        let at = 16 * usize::from(index);
        let flags = if device_writes { DESC_WRITE } else { 0 } | if next.is_some() { DESC_NEXT } else { 0 };
        self.memory.atomic_u64(at).store(iova.to_le(), Ordering::Relaxed);
        self.memory.atomic_u32(at + 8).store(len.to_le(), Ordering::Relaxed);
        self.memory.atomic_u16(at + 12).store(flags.to_le(), Ordering::Relaxed);
        self.memory.atomic_u16(at + 14).store(next.unwrap_or(0).to_le(), Ordering::Relaxed);
    }

    /// Puts a chain into the available ring. At most `size` may be offered and not taken back.
    pub fn offer(&mut self, head: u16) {
        let at = self.avail(4 + 2 * self.slot(self.offered));
        self.memory.atomic_u16(at).store(head.to_le(), Ordering::Relaxed);
        self.offered = self.offered.wrapping_add(1);
    }

    /// How many chains were offered since the last [`SplitQueue::publish`].
    #[must_use]
    pub fn unpublished(&self) -> u16 {
        self.offered.wrapping_sub(self.published)
    }

    /// How many chains the device has not given back.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.published.wrapping_sub(self.taken)
    }

    /// Lets the device see what was offered. True if it wants to be notified of it.
    pub fn publish(&mut self) -> bool {
        let old = self.published;
        let new = self.offered;
        if old == new {
            return false;
        }
        self.store(self.avail(2), new);
        self.published = new;
        // The device's wish is read only after it can see the new index (2.7.13.4.1).
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.load(self.used(4 + 8 * usize::from(self.size)));
            // vring_need_event (2.7.10): the event lies in old..new.
            return new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        }
        self.load(self.used(0)) & USED_NO_NOTIFY == 0
    }

    /// Whether the device is done with something.
    #[must_use]
    pub fn has_used(&self) -> bool {
        self.load(self.used(2)) != self.taken
    }

    /// Takes the next chain that the device is done with.
    ///
    /// # Errors
    /// [`Error::BrokenQueue`] if the device claims to be done with more than it was given, or with a descriptor that
    /// there is not.
    pub fn take(&mut self) -> Result<Option<Used>> {
        let broken = |detail: String| Error::BrokenQueue { queue: self.name, detail };
        let index = self.load(self.used(2));
        if index == self.taken {
            return Ok(None);
        }
        if index.wrapping_sub(self.taken) > self.published.wrapping_sub(self.taken) {
            return Err(broken(format!("used index {index} is ahead of available index {}", self.published)));
        }
        let at = self.used(4 + 8 * self.slot(self.taken));
        let head = u32::from_le(self.memory.atomic_u32(at).load(Ordering::Relaxed));
        let len = u32::from_le(self.memory.atomic_u32(at + 4).load(Ordering::Relaxed));
        let Some(head) = u16::try_from(head).ok().filter(|h| *h < self.size) else {
            return Err(broken(format!("used element names descriptor {head} of {}", self.size)));
        };
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(Used { head, len }))
    }

    /// Turns interrupts off (a wish that the device may overlook).
    pub fn suppress_interrupts(&self) {
        if self.event_idx {
            // As far away as can be.
            self.store(self.avail(4 + 2 * usize::from(self.size)), self.taken.wrapping_add(0x8000));
        } else {
            self.store(self.avail(0), AVAIL_NO_INTERRUPT);
        }
    }

    /// Turns interrupts on. True if something is used already, for which no interrupt may come: do not sleep.
    #[must_use]
    pub fn want_interrupt(&self) -> bool {
        if self.event_idx {
            self.store(self.avail(4 + 2 * usize::from(self.size)), self.taken);
        } else {
            self.store(self.avail(0), 0);
        }
        fence(Ordering::SeqCst);
        self.has_used()
    }
}

#[cfg(test)]
mod tests;
