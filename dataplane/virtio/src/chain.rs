//! Descriptors and chains of them, copied out of a guest's memory.

use crate::fault::RingFault;
use crate::layout::DESCRIPTOR;

/// Descriptor flags (2.7.5).
pub(crate) const NEXT: u16 = 1;
const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A piece of a driver's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// Bytes of segments together.
#[inline]
pub fn total_len(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// A descriptor, copied.
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    #[inline]
    pub(crate) fn new(bytes: [u8; DESCRIPTOR]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Descriptor {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }
}

/// A descriptor chain, copied: first what the device reads, then what it writes. Reused from chain to chain, so that it
/// grows to the ring's size at most.
#[derive(Debug, Default)]
pub struct Chain {
    segments: Vec<Segment>,
    readable: usize,
}

impl Chain {
    /// What the device reads.
    #[inline]
    pub fn readable(&self) -> &[Segment] {
        &self.segments[..self.readable]
    }

    /// What the device writes.
    #[inline]
    pub fn writable(&self) -> &[Segment] {
        &self.segments[self.readable..]
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.readable = 0;
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Adds a descriptor. Writable ones come last (2.7.4.2).
    #[inline]
    pub(crate) fn push(&mut self, descriptor: &Descriptor) -> Result<(), RingFault> {
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
