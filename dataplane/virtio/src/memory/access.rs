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
