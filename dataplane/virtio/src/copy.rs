//! Copies between a guest's segments and pieces of our memory.

use crate::chain::Segment;
use crate::fault::{MemoryFault, RingFault};
use crate::memory::GuestMemory;

/// Copies from segments into pieces, until either end.
///
/// # Errors
/// An address that may not be read.
pub fn gather(
    memory: &impl GuestMemory,
    segments: &[Segment],
    pieces: &mut [&mut [u8]],
) -> Result<(), RingFault> {
    let mut segments = segments.iter().copied();
    let mut from = Segment { address: 0, len: 0 };
    for piece in pieces {
        let mut left = &mut **piece;
        while !left.is_empty() {
            if from.len == 0 {
                let Some(next) = segments.next() else { return Ok(()) };
                from = next;
                continue;
            }
            let n = left.len().min(from.len as usize);
            let (now, rest) = left.split_at_mut(n);
            memory.read(from.address, now)?;
            advance(&mut from, n)?;
            left = rest;
        }
    }
    Ok(())
}

/// Copies pieces into segments, until either end.
///
/// # Errors
/// An address that may not be written.
pub fn scatter<'p>(
    memory: &impl GuestMemory,
    segments: &[Segment],
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Result<(), RingFault> {
    let mut segments = segments.iter().copied();
    let mut to = Segment { address: 0, len: 0 };
    for piece in pieces {
        let mut left = piece;
        while !left.is_empty() {
            if to.len == 0 {
                let Some(next) = segments.next() else { return Ok(()) };
                to = next;
                continue;
            }
            let (now, rest) = left.split_at(left.len().min(to.len as usize));
            memory.write(to.address, now)?;
            advance(&mut to, now.len())?;
            left = rest;
        }
    }
    Ok(())
}

fn advance(segment: &mut Segment, by: usize) -> Result<(), RingFault> {
    segment.address = segment.address.checked_add(by as u64).ok_or(MemoryFault::Unmapped)?;
    segment.len -= by as u32;
    Ok(())
}
