//! `IovaSpace`: allocates device addresses (IOVAs) for DMA memory. First fit from 4 GiB, above the interrupt window.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// The lowest address.
const FIRST: u64 = 1 << 32;
/// The end of the addresses that the narrowest IOMMUs in use (39 bits) can map.
const END: u64 = 1 << 39;
/// Every range starts at a multiple of this, so that huge pages stay huge in the IOMMU.
const ALIGN: u64 = 2 << 20;

/// The address space of one device.
#[derive(Default)]
pub(crate) struct IovaSpace(Mutex<BTreeMap<u64, u64>>);

impl IovaSpace {
    /// Allocates a range of `len` bytes.
    pub(crate) fn allocate(&self, len: usize) -> Option<u64> {
        let len = len as u64;
        let mut used = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut at = FIRST;
        for (start, size) in used.iter() {
            if at.checked_add(len)? <= *start {
                break;
            }
            at = (start + size).next_multiple_of(ALIGN);
        }
        let end = at.checked_add(len).filter(|end| *end <= END && len > 0)?;
        used.insert(at, end - at);
        Some(at)
    }

    /// Frees a range.
    pub(crate) fn release(&self, iova: u64) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&iova);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_never_overlap_and_are_reused() {
        let space = IovaSpace::default();
        let a = space.allocate(4096).unwrap();
        let b = space.allocate(5 << 20).unwrap();
        let c = space.allocate(4096).unwrap();
        assert!(a >= FIRST && a + 4096 <= b && b + (5 << 20) <= c);
        space.release(b);
        assert_eq!(space.allocate(3 << 20), Some(b));
        assert_eq!(space.allocate(0), None);
        assert_eq!(space.allocate(usize::MAX), None);
    }
}
