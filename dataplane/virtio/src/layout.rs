//! Where a driver has put the three parts of a ring.

use crate::fault::RingFault;

/// Bytes of a descriptor (2.7.5).
pub(crate) const DESCRIPTOR: usize = 16;
/// Bytes of an element of the used ring (2.7.8).
pub(crate) const ELEMENT: usize = 8;

/// Size and addresses of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Number of descriptors.
    pub size: u16,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring, the driver's.
    pub available: u64,
    /// Address of the used ring, the device's.
    pub used: u64,
}

impl Layout {
    /// Address and length of descriptor table, available ring and used ring.
    pub fn parts(&self) -> [(u64, usize); 3] {
        let n = usize::from(self.size);
        [(self.descriptors, DESCRIPTOR * n), (self.available, 6 + 2 * n), (self.used, 6 + ELEMENT * n)]
    }

    /// Checks what virtio demands: a power of two up to `max`, three parts aligned to 16, 2 and 4 (2.7). No part overlaps
    /// another or wraps around.
    ///
    /// # Errors
    /// [`RingFault::Setup`].
    pub fn check(&self, max: u16) -> Result<(), RingFault> {
        let aligned = self.descriptors.is_multiple_of(16)
            && self.available.is_multiple_of(2)
            && self.used.is_multiple_of(4);
        let mut sorted = self.parts();
        sorted.sort_unstable();
        let end = |(at, len): (u64, usize)| at.checked_add(len as u64);
        let apart = sorted.windows(2).all(|pair| end(pair[0]).is_some_and(|end| end <= pair[1].0));
        let good = self.size.is_power_of_two() && self.size <= max && aligned;
        if good && apart && end(sorted[2]).is_some() { Ok(()) } else { Err(RingFault::Setup) }
    }
}
