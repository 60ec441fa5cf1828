//! The driver's side of a split ring in a memory file (virtio 1.2, 2.7), of which every word can be written.

use std::io;

use crate::memory::{GUEST, Memory, USER};

/// Descriptors of a ring.
pub const SIZE: u16 = 256;
/// Distance of rings, and of available and used ring from a ring's begin.
const RING: u64 = 0x8000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x4000;
/// Where buffers begin, the room of one ring's buffers, and the room of one.
const BUFFERS: u64 = 0x4_0000;
const BUFFERS_OF_RING: u64 = 0x10_0000;
/// Room of one buffer.
pub const BUFFER: u64 = 4096;
/// Memory that a guest with three rings needs.
pub const MEMORY: u64 = BUFFERS + 3 * BUFFERS_OF_RING;

/// Descriptor flags.
pub const NEXT: u16 = 1;
/// The device writes to the buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Its number: 0 receives, 1 sends, 2 controls.
    pub index: u16,
    next: u16,
    seen: u16,
}

impl Ring {
    /// A ring that is empty.
    #[must_use]
    pub fn new(index: u16) -> Self {
        Ring { index, next: 0, seen: 0 }
    }

    /// Offset in the memory file of the descriptor table, available ring and used ring.
    #[must_use]
    pub fn parts(&self) -> [u64; 3] {
        let at = u64::from(self.index) * RING;
        [at, at + AVAILABLE, at + USED]
    }

    /// The parts' addresses for the device.
    #[must_use]
    pub fn guest_addresses(&self) -> [u64; 3] {
        self.parts().map(|at| GUEST + at)
    }

    /// The parts' addresses for the VMM.
    #[must_use]
    pub fn user_addresses(&self) -> [u64; 3] {
        self.parts().map(|at| USER + at)
    }

    /// Offset in the memory file of a descriptor's buffer.
    #[must_use]
    pub fn buffer(&self, index: u16) -> u64 {
        BUFFERS + u64::from(self.index) * BUFFERS_OF_RING + u64::from(index % SIZE) * BUFFER
    }

    /// Bytes of a descriptor.
    #[must_use]
    pub fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        bytes
    }

    /// Writes a descriptor.
    ///
    /// # Errors
    /// The memory cannot be written.
    pub fn describe(
        &self,
        memory: &Memory,
        index: u16,
        to: [u64; 2],
        flags: u16,
        next: u16,
    ) -> io::Result<()> {
        let bytes = Self::descriptor(to[0], to[1] as u32, flags, next);
        memory.write(self.parts()[0] + 16 * u64::from(index % SIZE), &bytes)
    }

    /// Puts chains into the available ring that begin with these descriptors, and shows them to the device.
    ///
    /// # Errors
    /// The memory cannot be written.
    pub fn offer(&mut self, memory: &Memory, heads: impl IntoIterator<Item = u16>) -> io::Result<()> {
        for head in heads {
            let slot = u64::from(self.next % SIZE);
            memory.store(self.parts()[1] + 4 + 2 * slot, head)?;
            self.next = self.next.wrapping_add(1);
        }
        self.show(memory, self.next)
    }

    /// Writes the available index.
    ///
    /// # Errors
    /// The memory cannot be written.
    pub fn show(&self, memory: &Memory, index: u16) -> io::Result<()> {
        memory.store(self.parts()[1] + 2, index)
    }

    /// Number of chains that were ever offered.
    #[must_use]
    pub fn offered(&self) -> u16 {
        self.next
    }

    /// The device's used index.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn used(&self, memory: &Memory) -> io::Result<u16> {
        memory.load(self.parts()[2] + 2)
    }

    /// Chains that the device has not used yet.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn in_flight(&self, memory: &Memory) -> io::Result<u16> {
        Ok(self.next.wrapping_sub(self.used(memory)?))
    }

    /// The next used element: head and length.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn take(&mut self, memory: &Memory) -> io::Result<Option<(u16, u32)>> {
        if self.seen == self.used(memory)? {
            return Ok(None);
        }
        let mut element = [0; 8];
        memory.read(self.parts()[2] + 4 + 8 * u64::from(self.seen % SIZE), &mut element)?;
        self.seen = self.seen.wrapping_add(1);
        let [h0, h1, _, _, l0, l1, l2, l3] = element;
        Ok(Some((u16::from_le_bytes([h0, h1]), u32::from_le_bytes([l0, l1, l2, l3]))))
    }
}
