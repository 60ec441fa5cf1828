//! What can be done with memory of a guest: bounded copies, since the guest may change any byte at any time.

use crate::fault::MemoryFault;

/// Memory of a guest, by address.
pub trait GuestMemory {
    /// Copies from the memory.
    ///
    /// # Errors
    /// Part of the range may not be read.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryFault>;

    /// Copies to the memory. A fault may leave the range partly written.
    ///
    /// # Errors
    /// Part of the range may not be written.
    fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault>;

    /// Prefetches the first cache lines of a range, to be read or to be written, if it is mapped.
    fn prefetch(&self, address: u64, len: u32, write: bool);
}

/// Memory of a guest in which rings may lie: their indices are read and written as whole words.
pub trait WordMemory: GuestMemory {
    /// Reads a little-endian 16-bit word at once, with acquire ordering.
    ///
    /// # Errors
    /// The word may not be read.
    fn load_u16(&self, address: u64) -> Result<u16, MemoryFault>;

    /// Writes a little-endian 16-bit word at once, with release ordering.
    ///
    /// # Errors
    /// The word may not be written.
    fn store_u16(&self, address: u64, value: u16) -> Result<(), MemoryFault>;
}
