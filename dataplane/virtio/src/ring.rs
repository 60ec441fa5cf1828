//! The state of a split virtqueue on the device's side (virtio 1.2, 2.7), in memory that its driver may change at any time.
//!
//! Every index and descriptor is copied once and checked before use. Chains are given back in the order in which they were
//! made available, and their driver sees them at [`publish`](Ring::publish), once a burst: so the used index says at any
//! time where a successor of ours continues. `virtio-queue` would publish a frame's buffers one by one, and a driver may
//! then see the first part of a frame whose others are not there yet.

use std::sync::atomic::{Ordering, fence};

use crate::chain::{Chain, Descriptor, INDIRECT, NEXT};
use crate::fault::{MemoryFault, RingFault};
use crate::layout::{DESCRIPTOR, ELEMENT};
use crate::parts::{Part, RingMemory};

/// Bytes of a cache line.
const LINE: usize = 64;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`.
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;
/// Offsets in the available and the used ring.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;

/// What was negotiated for a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub indirect: bool,
}

/// A running ring.
#[derive(Debug)]
pub struct Ring {
    size: u16,
    options: Options,
    /// Next entry of both the available and the used ring.
    next: u16,
    /// The used index as the driver sees it: entries up to `next` are written, and wait for the end of the burst.
    published: u16,
    /// The available index as it was read last. It lies in a line that the driver writes to all the time.
    available_index: u16,
    /// `published` when an interrupt was last considered.
    considered: u16,
    notify: bool,
}

impl Ring {
    /// A ring of a size that was checked, which begins at entry `next`. Call [`set_notify`](Self::set_notify) before use.
    pub fn new(size: u16, options: Options, next: u16) -> Self {
        Ring { size, options, next, published: next, available_index: next, considered: next, notify: false }
    }

    /// A ring that continues where its used index says, without notifications.
    ///
    /// # Errors
    /// The used ring cannot be accessed.
    pub fn resume(memory: &impl RingMemory, size: u16, options: Options) -> Result<Self, RingFault> {
        let mut ring = Ring::new(size, options, memory.load(Part::Used, INDEX)?);
        ring.set_notify(memory, false)?;
        Ok(ring)
    }

    /// The entry at which a successor continues.
    pub fn next(&self) -> u16 {
        self.next
    }

    /// Place of the entry `skip` ahead in both rings.
    fn slot(&self, skip: u16) -> usize {
        // virtio 1.2 section 2.7.6: the index counts modulo 2^16, its place in the ring is modulo the queue's size
        usize::from(self.next.wrapping_add(skip) % self.size)
    }

    /// How many chains the driver has made available.
    ///
    /// # Errors
    /// The index jumped, or cannot be read.
    pub fn waiting(&mut self, memory: &impl RingMemory) -> Result<u16, RingFault> {
        let index = memory.load(Part::Available, INDEX)?;
        let waiting = index.wrapping_sub(self.next);
        // virtio 1.2 section 2.7.6.1: the driver does not decrement the available index
        if waiting > self.size {
            return Err(RingFault::AvailableIndex);
        }
        self.available_index = index;
        Ok(waiting)
    }

    /// Whether more than `skip` chains are available. Reads the driver's index only if it has to.
    ///
    /// # Errors
    /// As [`waiting`](Self::waiting).
    pub fn is_waiting(&mut self, memory: &impl RingMemory, skip: u16) -> Result<bool, RingFault> {
        Ok(self.available_index.wrapping_sub(self.next) > skip || self.waiting(memory)? > skip)
    }

    /// Prefetches descriptors and used elements of up to `count` chains that are known to be available, with `buffers` also
    /// the buffers that their frames will be written to. All of it was last on the guest's core. Nothing that is read here
    /// is kept.
    pub fn prefetch(&self, memory: &impl RingMemory, count: u16, buffers: bool) {
        let known = self.available_index.wrapping_sub(self.next).min(count);
        for skip in (0..known).step_by(LINE / ELEMENT) {
            memory.prefetch_part(Part::Used, ENTRIES + ELEMENT * self.slot(skip), true);
        }
        for skip in 0..known {
            let Ok(head) = memory.load(Part::Available, ENTRIES + 2 * self.slot(skip)) else { return };
            memory.prefetch_part(Part::Descriptors, DESCRIPTOR * usize::from(head), false);
        }
        for skip in 0..if buffers { known } else { 0 } {
            let Ok(head) = memory.load(Part::Available, ENTRIES + 2 * self.slot(skip)) else { return };
            if let Ok(bytes) = memory.descriptor(DESCRIPTOR * usize::from(head)) {
                let Descriptor { address, len, .. } = Descriptor::new(bytes);
                memory.prefetch(address, len, true);
            }
        }
    }

    /// Copies the chain `skip` places ahead, which must be available, and returns its head. Consumes nothing.
    ///
    /// # Errors
    /// What is wrong with the chain.
    pub fn peek(&self, memory: &impl RingMemory, skip: u16, chain: &mut Chain) -> Result<u16, RingFault> {
        chain.clear();
        let head = memory.load(Part::Available, ENTRIES + 2 * self.slot(skip))?;
        let mut index = head;
        loop {
            // virtio 1.2 section 2.7.5: the queue's size is the number of descriptors in the table
            if index >= self.size {
                return Err(RingFault::DescriptorIndex);
            }
            let descriptor = Descriptor::new(memory.descriptor(DESCRIPTOR * usize::from(index))?);
            if descriptor.flags & INDIRECT != 0 {
                return self.indirect(memory, &descriptor, chain).map(|()| head);
            }
            // virtio 1.2 section 2.7.4.2: writable descriptors come after readable ones
            chain.push(&descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(head);
            }
            self.check_len(chain)?;
            index = descriptor.next;
        }
    }

    /// Copies a table of descriptors that lies elsewhere and ends the chain.
    fn indirect(
        &self,
        memory: &impl RingMemory,
        table: &Descriptor,
        chain: &mut Chain,
    ) -> Result<(), RingFault> {
        let count = table.len / DESCRIPTOR as u32;
        let whole = table.len.is_multiple_of(DESCRIPTOR as u32) && count > 0;
        // virtio 1.2 section 2.7.5.3.1: only if it was negotiated, and never together with NEXT
        if !self.options.indirect || !whole || table.flags & NEXT != 0 {
            return Err(RingFault::Indirect);
        }
        // virtio 1.2 section 2.7.5.3.2: the table's own WRITE flag is ignored
        let mut index = 0;
        loop {
            if u32::from(index) >= count {
                return Err(RingFault::DescriptorIndex);
            }
            let offset = DESCRIPTOR as u64 * u64::from(index);
            let address = table.address.checked_add(offset).ok_or(MemoryFault::Unmapped)?;
            let mut bytes = [0; DESCRIPTOR];
            memory.read(address, &mut bytes)?;
            let descriptor = Descriptor::new(bytes);
            // virtio 1.2 section 2.7.5.3.1: a table has no descriptor of another table
            if descriptor.flags & INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            chain.push(&descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            self.check_len(chain)?;
            index = descriptor.next;
        }
    }

    fn check_len(&self, chain: &Chain) -> Result<(), RingFault> {
        // virtio 1.2 section 2.7.5.2: chains do not loop, so none has more descriptors than the queue
        if chain.len() < usize::from(self.size) { Ok(()) } else { Err(RingFault::Loop) }
    }

    /// Consumes as many available chains as `used` has elements, heads and bytes written. The next
    /// [`publish`](Self::publish) gives them back all at once: a driver never sees a frame in several buffers in part.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn complete(&mut self, memory: &impl RingMemory, used: &[(u16, u32)]) -> Result<(), RingFault> {
        for (i, (head, len)) in used.iter().enumerate() {
            // virtio 1.2 section 2.7.8: the head's index in 32 bits, then the bytes written
            let element = u64::from(*head) | u64::from(*len) << 32;
            memory.write_used(ENTRIES + ELEMENT * self.slot(i as u16), element)?;
        }
        self.next = self.next.wrapping_add(used.len() as u16);
        Ok(())
    }

    /// Shows the driver what was completed. Once a burst: a driver that polls takes the line away each time.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn publish(&mut self, memory: &impl RingMemory) -> Result<(), RingFault> {
        if self.published == self.next {
            return Ok(());
        }
        // virtio 1.2 section 2.7.8.2: buffers and elements are written before the used index
        memory.store(Part::Used, INDEX, self.next)?;
        self.published = self.next;
        if self.notify && self.options.event_idx {
            self.set_avail_event(memory)?;
        }
        Ok(())
    }

    /// Whether what was published since the last call is worth an interrupt to the driver.
    ///
    /// # Errors
    /// The available ring cannot be read.
    pub fn take_interrupt(&mut self, memory: &impl RingMemory) -> Result<bool, RingFault> {
        let (old, new) = (self.considered, self.published);
        if old == new {
            return Ok(false);
        }
        self.considered = new;
        // The used index must be visible before we look at what the driver last asked for.
        fence(Ordering::SeqCst);
        if self.options.event_idx {
            // virtio 1.2 section 2.7.7.2: an interrupt when the used index passes used_event
            let event = memory.load(Part::Available, ENTRIES + 2 * usize::from(self.size))?;
            Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
        } else {
            // virtio 1.2 section 2.7.7.2: no interrupt while the driver has set NO_INTERRUPT
            Ok(memory.load(Part::Available, FLAGS)? & NO_INTERRUPT == 0)
        }
    }

    /// Asks the driver to notify of new chains, or not to. After switching it on, look at [`waiting`](Self::waiting).
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn set_notify(&mut self, memory: &impl RingMemory, on: bool) -> Result<(), RingFault> {
        self.notify = on;
        if !self.options.event_idx {
            // virtio 1.2 section 2.7.10.2: NO_NOTIFY asks for silence where event indices were not negotiated
            memory.store(Part::Used, FLAGS, if on { 0 } else { NO_NOTIFY })?;
        } else if on {
            // Off: the event index stays behind, which is silence for 2^16 chains.
            self.set_avail_event(memory)?;
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn set_avail_event(&self, memory: &impl RingMemory) -> Result<(), RingFault> {
        // virtio 1.2 section 2.7.10: avail_event follows the used elements
        Ok(memory.store(Part::Used, ENTRIES + ELEMENT * usize::from(self.size), self.next)?)
    }
}
