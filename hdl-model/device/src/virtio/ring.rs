//! The device's side of a split virtqueue (virtio 1.2, 2.7), in memory that its driver may change at any time.
//!
//! Every index, descriptor and address is copied once and checked before use. What the driver gets wrong is a
//! [`RingFault`]; after one the queue must not be touched again until it is set up anew.

use std::sync::atomic::{Ordering, fence};

use culvert_packet::Reason;

use crate::dma::{Fault, View};

/// Largest queue that is offered.
pub(super) const MAX_SIZE: u16 = 256;

const DESC_LEN: u64 = 16;
const USED_LEN: u64 = 8;
/// Descriptor flags.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`.
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// What a driver did that stopped its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// The available index moved by more than the queue's size, or backwards.
    #[error("the available index jumped")]
    AvailableIndex,
    /// A descriptor index that the table does not have.
    #[error("a descriptor index is out of range")]
    DescriptorIndex,
    /// A chain longer than the table: it loops.
    #[error("a descriptor chain loops")]
    Loop,
    /// An indirect descriptor, which was not offered.
    #[error("an indirect descriptor, which was not offered")]
    Indirect,
    /// A buffer for the device to read follows one for it to write.
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// A chain without the room that its queue needs for a header.
    #[error("a buffer is too short for the queue's header")]
    ShortBuffer,
    /// The queue was enabled with a size, alignment or address that virtio forbids.
    #[error("the queue was set up wrongly")]
    Setup,
    /// A ring or a buffer lies where it may not be accessed.
    #[error("memory access failed: {0}")]
    Memory(#[from] Fault),
}

impl RingFault {
    /// Number of kinds.
    pub const COUNT: usize = 12;
    /// The kinds' words, in the order of their counters.
    pub const WORDS: [&'static str; Self::COUNT] = [
        "available_index",
        "descriptor_index",
        "loop",
        "indirect",
        "order",
        "short_buffer",
        "setup",
        "unmapped",
        "denied",
        "shrunk",
        "misaligned",
        "remote",
    ];

    /// The kind's place among the counters.
    pub const fn index(self) -> usize {
        match self {
            Self::AvailableIndex => 0,
            Self::DescriptorIndex => 1,
            Self::Loop => 2,
            Self::Indirect => 3,
            Self::Order => 4,
            Self::ShortBuffer => 5,
            Self::Setup => 6,
            Self::Memory(fault) => 7 + fault as usize,
        }
    }

    /// The reason under which the board reports it.
    pub const fn reason(self) -> Reason {
        Self::reason_at(self.index())
    }

    /// The reason of the kind with this place among the counters: from 7 on it is the memory.
    pub(super) const fn reason_at(index: usize) -> Reason {
        if index < 7 { Reason::BadDescriptor } else { Reason::DmaFault }
    }

    /// The kind's word in counters and logs.
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self.index()]
    }
}

/// A piece of a driver's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) iova: u64,
    pub(super) len: u32,
}

/// A descriptor chain, copied. Reused from one chain to the next, so that it grows once, to the queue's size at most.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) readable: Vec<Segment>,
    pub(super) writable: Vec<Segment>,
}

impl Chain {
    pub(super) fn readable_len(&self) -> u64 {
        self.readable.iter().map(|segment| u64::from(segment.len)).sum()
    }

    pub(super) fn writable_len(&self) -> u64 {
        self.writable.iter().map(|segment| u64::from(segment.len)).sum()
    }
}

/// Where a driver put a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) size: u16,
    pub(super) desc: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
}

impl Layout {
    /// Virtio 1.2, 2.7: a power of two up to what was offered, aligned to 16, 2 and 4, nothing wrapping around.
    fn check(&self) -> Result<(), RingFault> {
        let aligned =
            self.desc.is_multiple_of(16) && self.avail.is_multiple_of(2) && self.used.is_multiple_of(4);
        let fits = [self.desc, self.avail, self.used].iter().all(|at| at.checked_add(1 << 16).is_some());
        let sized = self.size.is_power_of_two() && self.size <= MAX_SIZE;
        if aligned && fits && sized { Ok(()) } else { Err(RingFault::Setup) }
    }
}

/// A running queue.
#[derive(Debug)]
pub(super) struct Queue {
    layout: Layout,
    event_idx: bool,
    /// Next entry of the available ring.
    next_avail: u16,
    /// Next entry of the used ring.
    next_used: u16,
    /// `next_used` when an interrupt was last considered.
    considered: u16,
    notify: bool,
}

impl Queue {
    pub(super) fn new(layout: Layout, event_idx: bool) -> Result<Self, RingFault> {
        layout.check()?;
        Ok(Self { layout, event_idx, next_avail: 0, next_used: 0, considered: 0, notify: true })
    }

    fn size(&self) -> u64 {
        u64::from(self.layout.size)
    }

    /// How many chains the driver has made available.
    pub(super) fn available(&self, view: &View<'_>) -> Result<u16, RingFault> {
        let waiting = view.load_u16(self.layout.avail + 2)?.wrapping_sub(self.next_avail);
        if waiting > self.layout.size { Err(RingFault::AvailableIndex) } else { Ok(waiting) }
    }

    /// Copies the chain `skip` places ahead, which must be available, and returns its head. Consumes nothing.
    pub(super) fn peek(&self, view: &View<'_>, skip: u16, chain: &mut Chain) -> Result<u16, RingFault> {
        chain.readable.clear();
        chain.writable.clear();
        let slot = u64::from(self.next_avail.wrapping_add(skip)) % self.size();
        let mut entry = [0; 2];
        view.read(self.layout.avail + 4 + 2 * slot, &mut entry)?;
        let head = u16::from_le_bytes(entry);
        let mut index = head;
        for _ in 0..self.layout.size {
            if index >= self.layout.size {
                return Err(RingFault::DescriptorIndex);
            }
            let mut desc = [0; DESC_LEN as usize];
            view.read(self.layout.desc + DESC_LEN * u64::from(index), &mut desc)?;
            let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = desc;
            let segment = Segment {
                iova: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
                len: u32::from_le_bytes([l0, l1, l2, l3]),
            };
            let flags = u16::from_le_bytes([f0, f1]);
            if flags & INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            if flags & WRITE != 0 {
                chain.writable.push(segment);
            } else if chain.writable.is_empty() {
                chain.readable.push(segment);
            } else {
                return Err(RingFault::Order);
            }
            if flags & NEXT == 0 {
                return Ok(head);
            }
            index = u16::from_le_bytes([n0, n1]);
        }
        Err(RingFault::Loop)
    }

    /// Consumes as many available chains as `used` has elements and gives them back with the number of bytes written,
    /// all at once: a frame in several buffers is never seen in part.
    pub(super) fn complete(&mut self, view: &View<'_>, used: &[(u16, u32)]) -> Result<(), RingFault> {
        for (i, (head, len)) in used.iter().enumerate() {
            let slot = u64::from(self.next_used.wrapping_add(i as u16)) % self.size();
            let mut element = [0; USED_LEN as usize];
            element[..4].copy_from_slice(&u32::from(*head).to_le_bytes());
            element[4..].copy_from_slice(&len.to_le_bytes());
            view.write(self.layout.used + 4 + USED_LEN * slot, &element)?;
        }
        self.next_avail = self.next_avail.wrapping_add(used.len() as u16);
        self.next_used = self.next_used.wrapping_add(used.len() as u16);
        view.store_u16(self.layout.used + 2, self.next_used)?;
        if self.notify && self.event_idx {
            self.set_avail_event(view)?;
        }
        Ok(())
    }

    /// Whether what was completed since the last call is worth an interrupt to the driver (2.7.7.2, 2.7.10).
    pub(super) fn take_interrupt(&mut self, view: &View<'_>) -> Result<bool, RingFault> {
        let (old, new) = (self.considered, self.next_used);
        if old == new {
            return Ok(false);
        }
        self.considered = new;
        // The used index must be visible before we look at what the driver last asked for.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = view.load_u16(self.layout.avail + 4 + 2 * self.size())?;
            Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
        } else {
            Ok(view.load_u16(self.layout.avail)? & NO_INTERRUPT == 0)
        }
    }

    /// Asks the driver to notify of new buffers, or not to. After switching on, look at [`available`](Self::available).
    pub(super) fn set_notify(&mut self, view: &View<'_>, on: bool) -> Result<(), RingFault> {
        self.notify = on;
        if self.event_idx {
            // Off: the event index stays behind, which silences the driver for 2^16 buffers.
            if on {
                self.set_avail_event(view)?;
            }
        } else {
            view.store_u16(self.layout.used, if on { 0 } else { NO_NOTIFY })?;
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn set_avail_event(&self, view: &View<'_>) -> Result<(), RingFault> {
        Ok(view.store_u16(self.layout.used + 4 + USED_LEN * self.size(), self.next_avail)?)
    }
}
