//! The device's side of a split virtqueue (virtio 1.2, 2.7), in memory that its driver may change at any time.
//!
//! Every index, descriptor and address is copied once and checked before use. What the driver gets wrong is a
//! [`RingFault`]; after one the ring is not touched again until the VMM sets it up anew. Chains are given back in the
//! order in which they were made available, and at the end of a burst: so the used index says at any time where to go
//! on, also to a successor of ours. `virtio-queue` would publish a frame's buffers one by one, and a driver may then
//! see the first part of a frame whose others are not there yet.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::RingFault;
use super::memory::{Memory, Place};
use super::message::Places;

/// Largest ring that is taken, as it is for QEMU.
pub(super) const MAX_SIZE: u16 = 1024;

const DESCRIPTOR: usize = 16;
const ELEMENT: usize = 8;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Descriptor flags.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`.
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// A piece of a driver's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) address: u64,
    pub(super) len: u32,
}

/// A descriptor chain, copied: first what the device reads, then what it writes. Reused from chain to chain, so that it
/// grows to the ring's size at most.
#[derive(Debug, Default)]
pub(super) struct Chain {
    segments: Vec<Segment>,
    readable: usize,
}

impl Chain {
    pub(super) fn readable(&self) -> &[Segment] {
        &self.segments[..self.readable]
    }

    pub(super) fn writable(&self) -> &[Segment] {
        &self.segments[self.readable..]
    }

    fn push(&mut self, descriptor: &Descriptor) -> Result<(), RingFault> {
        if descriptor.flags & WRITE == 0 {
            if self.readable < self.segments.len() {
                return Err(RingFault::Order);
            }
            self.readable += 1;
        }
        self.segments.push(Segment { address: descriptor.address, len: descriptor.len });
        Ok(())
    }
}

/// Bytes of segments together.
pub(super) fn length(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn new(bytes: [u8; DESCRIPTOR]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Descriptor {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }
}

/// What a VMM says of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) size: u16,
    pub(super) places: Places,
}

impl Layout {
    /// Virtio 1.2, 2.7: a power of two, three parts aligned to 16, 2 and 4. None of them lies in another.
    fn check(&self) -> Result<[(u64, usize); 3], RingFault> {
        let (n, Places { descriptors, available, used }) = (usize::from(self.size), self.places);
        let parts = [(descriptors, DESCRIPTOR * n), (available, 6 + 2 * n), (used, 6 + ELEMENT * n)];
        let aligned = descriptors.is_multiple_of(16) && available.is_multiple_of(2) && used.is_multiple_of(4);
        let mut sorted = parts;
        sorted.sort_unstable();
        let apart = |pair: &[(u64, usize)]| {
            pair[0].0.checked_add(pair[0].1 as u64).is_some_and(|end| end <= pair[1].0)
        };
        let good = self.size.is_power_of_two() && self.size <= MAX_SIZE && aligned;
        if good && sorted.windows(2).all(apart) { Ok(parts) } else { Err(RingFault::Setup) }
    }
}

/// A running ring.
pub(super) struct Ring {
    memory: Arc<Memory>,
    descriptors: Place,
    available: Place,
    used: Place,
    size: u16,
    event_idx: bool,
    indirect: bool,
    /// Next entry of both the available and the used ring.
    next: u16,
    /// The used index as the driver sees it: entries up to `next` are written, and wait for the end of the burst.
    published: u16,
    /// The available index as it was read last. It lies in a line that the driver writes to all the time.
    available_index: u16,
    /// `next` when an interrupt was last considered.
    considered: u16,
    notify: bool,
}

impl Ring {
    /// Goes on where the used index says.
    pub(super) fn new(
        memory: &Arc<Memory>,
        layout: &Layout,
        event_idx: bool,
        indirect: bool,
    ) -> Result<Self, RingFault> {
        let [descriptors, available, used] = layout.check()?.map(|(at, len)| memory.place(at, len));
        let (descriptors, available, used) = (descriptors?, available?, used?);
        let next = used.load(2)?;
        let memory = Arc::clone(memory);
        let size = layout.size;
        let mut ring = Ring {
            memory,
            descriptors,
            available,
            used,
            size,
            event_idx,
            indirect,
            next,
            published: next,
            available_index: next,
            considered: next,
            notify: false,
        };
        ring.set_notify(false)?;
        Ok(ring)
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where a successor goes on.
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    fn slot(&self, skip: u16) -> usize {
        usize::from(self.next.wrapping_add(skip) % self.size)
    }

    /// How many chains the driver has made available.
    pub(super) fn waiting(&mut self) -> Result<u16, RingFault> {
        let index = self.available.load(2)?;
        let waiting = index.wrapping_sub(self.next);
        if waiting > self.size {
            return Err(RingFault::AvailableIndex);
        }
        self.available_index = index;
        Ok(waiting)
    }

    /// Whether there are more than `skip` chains available. Looks at the driver's index only if it has to.
    pub(super) fn is_waiting(&mut self, skip: u16) -> Result<bool, RingFault> {
        Ok(self.available_index.wrapping_sub(self.next) > skip || self.waiting()? > skip)
    }

    /// Calls into the cache what the next chains are described by and given back with, and with `buffers` also where their
    /// frames will be written. All of it was last on the guest's core. Nothing is kept of what is read here.
    pub(super) fn prepare(&self, count: u16, buffers: bool) {
        let known = self.available_index.wrapping_sub(self.next).min(count);
        for skip in (0..known).step_by(LINE / ELEMENT) {
            self.used.prefetch(4 + ELEMENT * self.slot(skip), true);
        }
        for skip in 0..known {
            let Ok(head) = self.available.load(4 + 2 * self.slot(skip)) else { return };
            self.descriptors.prefetch(DESCRIPTOR * usize::from(head), false);
        }
        for skip in 0..if buffers { known } else { 0 } {
            let Ok(head) = self.available.load(4 + 2 * self.slot(skip)) else { return };
            if let Ok(bytes) = self.descriptors.read::<u128>(DESCRIPTOR * usize::from(head)) {
                let Descriptor { address, len, .. } = Descriptor::new(bytes.to_ne_bytes());
                self.memory.prefetch(address, len, true);
            }
        }
    }

    /// Copies the chain `skip` places ahead, which must be available, and returns its head. Consumes nothing.
    pub(super) fn peek(&self, skip: u16, chain: &mut Chain) -> Result<u16, RingFault> {
        chain.segments.clear();
        chain.readable = 0;
        let head = self.available.load(4 + 2 * self.slot(skip))?;
        let mut index = head;
        loop {
            if index >= self.size {
                return Err(RingFault::DescriptorIndex);
            }
            let bytes = self.descriptors.read::<u128>(DESCRIPTOR * usize::from(index))?;
            let descriptor = Descriptor::new(bytes.to_ne_bytes());
            if descriptor.flags & INDIRECT != 0 {
                return self.indirect(&descriptor, chain).map(|()| head);
            }
            chain.push(&descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(head);
            }
            self.is_short(chain)?;
            index = descriptor.next;
        }
    }

    /// Virtio 1.2, 2.7.5.3: a table of descriptors elsewhere, which ends the chain. One that points to yet another table
    /// is wrong.
    fn indirect(&self, table: &Descriptor, chain: &mut Chain) -> Result<(), RingFault> {
        let count = table.len / DESCRIPTOR as u32;
        let whole = table.len.is_multiple_of(DESCRIPTOR as u32) && count > 0;
        if !self.indirect || !whole || table.flags & NEXT != 0 {
            return Err(RingFault::Indirect);
        }
        let mut index = 0;
        loop {
            if u32::from(index) >= count {
                return Err(RingFault::DescriptorIndex);
            }
            let offset = DESCRIPTOR as u64 * u64::from(index);
            let address = table.address.checked_add(offset).ok_or(RingFault::Unmapped)?;
            let mut bytes = [0; DESCRIPTOR];
            self.memory.read(address, &mut bytes)?;
            let descriptor = Descriptor::new(bytes);
            if descriptor.flags & INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            chain.push(&descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            self.is_short(chain)?;
            index = descriptor.next;
        }
    }

    /// A chain has no more descriptors than the ring has (2.7.5.3.1), or it loops.
    fn is_short(&self, chain: &Chain) -> Result<(), RingFault> {
        if chain.segments.len() < usize::from(self.size) { Ok(()) } else { Err(RingFault::Loop) }
    }

    /// Consumes as many available chains as `used` has elements, which are given back with the number of bytes written by
    /// the next [`publish`](Self::publish), all at once: a frame in several buffers is never seen in part.
    pub(super) fn complete(&mut self, used: &[(u16, u32)]) -> Result<(), RingFault> {
        for (i, (head, len)) in used.iter().enumerate() {
            let element = u64::from(*head) | u64::from(*len) << 32;
            self.used.write(4 + ELEMENT * self.slot(i as u16), element.to_le())?;
        }
        self.next = self.next.wrapping_add(used.len() as u16);
        Ok(())
    }

    /// Shows the driver what was completed. Once for a burst: a driver that polls takes the line away each time.
    pub(super) fn publish(&mut self) -> Result<(), RingFault> {
        if self.published == self.next {
            return Ok(());
        }
        self.published = self.next;
        self.used.store(2, self.next)?;
        if self.notify && self.event_idx {
            self.set_event()?;
        }
        Ok(())
    }

    /// Whether what was published since the last call is worth an interrupt to the driver (2.7.7.2, 2.7.10).
    pub(super) fn take_interrupt(&mut self) -> Result<bool, RingFault> {
        let (old, new) = (self.considered, self.published);
        if old == new {
            return Ok(false);
        }
        self.considered = new;
        // The used index must be visible before we look at what the driver last asked for.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.available.load(4 + 2 * usize::from(self.size))?;
            Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
        } else {
            Ok(self.available.load(0)? & NO_INTERRUPT == 0)
        }
    }

    /// Asks the driver to kick for new chains, or not to. After switching it on, look at [`waiting`](Self::waiting).
    pub(super) fn set_notify(&mut self, on: bool) -> Result<(), RingFault> {
        self.notify = on;
        if !self.event_idx {
            self.used.store(0, if on { 0 } else { NO_NOTIFY })?;
        } else if on {
            // Off: the event index stays behind, which is silence for 2^16 chains.
            self.set_event()?;
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn set_event(&self) -> Result<(), RingFault> {
        self.used.store(4 + ELEMENT * usize::from(self.size), self.next)
    }
}
