//! How a ring reaches its descriptor table, available ring and used ring.

use std::sync::Arc;

use crate::fault::MemoryFault;
use crate::layout::{DESCRIPTOR, Layout};
use crate::memory::{AddressSpace, GuestMemory, Place, WordMemory};

/// A part of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The descriptor table, the driver's.
    Descriptors,
    /// The available ring, the driver's.
    Available,
    /// The used ring, the device's.
    Used,
}

/// The memory of a ring: its parts by offset, and its buffers by address.
pub trait RingMemory: GuestMemory {
    /// Reads a 16-bit word of a part, with acquire ordering.
    ///
    /// # Errors
    /// The part may not be read.
    fn load(&self, part: Part, offset: usize) -> Result<u16, MemoryFault>;

    /// Writes a 16-bit word of a part, with release ordering.
    ///
    /// # Errors
    /// The part may not be written.
    fn store(&self, part: Part, offset: usize, word: u16) -> Result<(), MemoryFault>;

    /// Copies the descriptor at an offset of the descriptor table.
    ///
    /// # Errors
    /// The table may not be read.
    fn descriptor(&self, offset: usize) -> Result<[u8; DESCRIPTOR], MemoryFault>;

    /// Writes an element of the used ring at an offset: head in the low half, length in the high one.
    ///
    /// # Errors
    /// The used ring may not be written.
    fn write_used(&self, offset: usize, element: u64) -> Result<(), MemoryFault>;

    /// Prefetches the cache line of a part at an offset, to be read or to be written.
    fn prefetch_part(&self, part: Part, offset: usize, write: bool);
}

/// Parts that were looked up once, in memory that does not change while the ring runs.
pub struct PinnedParts {
    memory: Arc<AddressSpace>,
    descriptors: Place,
    available: Place,
    used: Place,
}

impl PinnedParts {
    /// Looks up the parts of a layout that was checked.
    ///
    /// # Errors
    /// A part does not lie in one region.
    pub fn new(memory: &Arc<AddressSpace>, layout: &Layout) -> Result<Self, MemoryFault> {
        let [descriptors, available, used] = layout.parts().map(|(at, len)| memory.place(at, len));
        Ok(PinnedParts {
            memory: Arc::clone(memory),
            descriptors: descriptors?,
            available: available?,
            used: used?,
        })
    }

    #[inline]
    fn place(&self, part: Part) -> &Place {
        match part {
            Part::Descriptors => &self.descriptors,
            Part::Available => &self.available,
            Part::Used => &self.used,
        }
    }
}

impl GuestMemory for PinnedParts {
    #[inline]
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.memory.read(address, into)
    }

    #[inline]
    fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault> {
        self.memory.write(address, from)
    }

    #[inline]
    fn prefetch(&self, address: u64, len: u32, write: bool) {
        self.memory.prefetch(address, len, write);
    }
}

impl RingMemory for PinnedParts {
    #[inline]
    fn load(&self, part: Part, offset: usize) -> Result<u16, MemoryFault> {
        self.place(part).load_u16(offset)
    }

    #[inline]
    fn store(&self, part: Part, offset: usize, word: u16) -> Result<(), MemoryFault> {
        self.place(part).store_u16(offset, word)
    }

    #[inline]
    fn descriptor(&self, offset: usize) -> Result<[u8; DESCRIPTOR], MemoryFault> {
        self.descriptors.read::<u128>(offset).map(u128::to_ne_bytes)
    }

    #[inline]
    fn write_used(&self, offset: usize, element: u64) -> Result<(), MemoryFault> {
        self.used.write(offset, element.to_le())
    }

    #[inline]
    fn prefetch_part(&self, part: Part, offset: usize, write: bool) {
        self.place(part).prefetch(offset, write);
    }
}

/// Parts that are looked up at each access, by I/O address, in memory that may be unmapped between two bursts.
pub struct IovaParts<'m, M = AddressSpace> {
    memory: &'m M,
    layout: &'m Layout,
}

impl<'m, M> IovaParts<'m, M> {
    /// The parts of a layout that was checked.
    pub fn new(memory: &'m M, layout: &'m Layout) -> Self {
        IovaParts { memory, layout }
    }

    fn address(&self, part: Part, offset: usize) -> u64 {
        let start = match part {
            Part::Descriptors => self.layout.descriptors,
            Part::Available => self.layout.available,
            Part::Used => self.layout.used,
        };
        // No part wraps around: the layout was checked.
        start.wrapping_add(offset as u64)
    }
}

impl<M: GuestMemory> GuestMemory for IovaParts<'_, M> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.memory.read(address, into)
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault> {
        self.memory.write(address, from)
    }

    fn prefetch(&self, address: u64, len: u32, write: bool) {
        self.memory.prefetch(address, len, write);
    }
}

impl<M: WordMemory> RingMemory for IovaParts<'_, M> {
    fn load(&self, part: Part, offset: usize) -> Result<u16, MemoryFault> {
        self.memory.load_u16(self.address(part, offset))
    }

    fn store(&self, part: Part, offset: usize, word: u16) -> Result<(), MemoryFault> {
        self.memory.store_u16(self.address(part, offset), word)
    }

    fn descriptor(&self, offset: usize) -> Result<[u8; DESCRIPTOR], MemoryFault> {
        let mut bytes = [0; DESCRIPTOR];
        self.memory.read(self.address(Part::Descriptors, offset), &mut bytes)?;
        Ok(bytes)
    }

    fn write_used(&self, offset: usize, element: u64) -> Result<(), MemoryFault> {
        self.memory.write(self.address(Part::Used, offset), &element.to_le_bytes())
    }

    fn prefetch_part(&self, part: Part, offset: usize, write: bool) {
        self.memory.prefetch(self.address(part, offset), 1, write);
    }
}
