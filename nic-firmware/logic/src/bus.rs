//! The firmware's view of the SoC: two rings and the packet buffers.

use core::ops::Deref;

use culvert_abi::soc::{Descriptor, HEADER_LEN};

/// Rings and buffers. The image implements it on shared memory, tests on vectors.
pub trait Bus {
    /// A received descriptor, in place. It is valid until the next one is taken.
    type Taken: Deref<Target = Descriptor>;

    /// The next descriptor from the board.
    fn receive(&mut self) -> Option<Self::Taken>;

    /// A packet buffer. `None`: there is no such buffer.
    fn buffer(&mut self, number: u32) -> Option<&mut [u8]>;

    /// The header scratch that belongs to the next descriptor to be sent. Waits until the ring has room for it; the
    /// board empties that ring without waiting for the firmware.
    fn header(&mut self) -> &mut [u8; HEADER_LEN as usize];

    /// Sends a descriptor to the board. Waits as [`header`](Self::header) does.
    fn send(&mut self, descriptor: &Descriptor);
}
