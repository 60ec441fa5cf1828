//! A guest's memory table (`SET_MEM_TABLE`). Buffers have addresses of the guest, vrings have addresses of the VMM.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use culvert_virtio::{AddressSpace, FileInfo, Layout, MappedFile, MemoryFault, PinnedParts, Region};

/// Bound on the bytes of all regions of a guest: all guests share this process's address space.
const MAX_MAPPED: u64 = 1 << 42;

/// A region of the memory table.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemRegion {
    /// Guest physical address.
    pub(super) guest: u64,
    /// Address in the VMM's own address space.
    pub(super) user: u64,
    pub(super) len: u64,
    /// Offset in the file.
    pub(super) offset: u64,
}

/// The mapped regions.
pub(super) struct MemTable {
    regions: Vec<MemRegion>,
    /// The mappings, by guest physical address.
    space: Arc<AddressSpace>,
}

/// Maps the part of a file that a region needs. `None`: the file is too short, or an access to it could wait for a disk or a
/// file server.
fn map(region: &MemRegion, file: &OwnedFd) -> Option<MappedFile> {
    let len = region.offset.checked_add(region.len)?;
    let info = FileInfo::of(file).ok().filter(|info| info.in_memory && len <= info.len)?;
    MappedFile::map(file, &info, len, true).ok()
}

impl MemTable {
    /// Maps regions. `None`: one of them cannot be mapped, or overlaps another.
    pub(super) fn map(table: Vec<(MemRegion, OwnedFd)>) -> Option<Self> {
        let (mut space, mut left) = (AddressSpace::new(), MAX_MAPPED);
        let mut regions = Vec::with_capacity(table.len());
        for (region, file) in table {
            left = left.checked_sub(region.offset.checked_add(region.len)?)?;
            let file = Some(Arc::new(map(&region, &file)?));
            let mapped = Region { size: region.len, offset: region.offset, read: true, write: true, file };
            space.insert(region.guest, mapped).ok()?;
            regions.push(region);
        }
        Some(MemTable { regions, space: Arc::new(space) })
    }

    /// Pins the parts of a vring, whose addresses are the VMM's.
    pub(super) fn parts(&self, layout: &Layout) -> Result<PinnedParts, MemoryFault> {
        let [descriptors, available, used] = layout.parts().map(|(at, len)| self.guest_address(at, len));
        let (descriptors, available, used) = (descriptors?, available?, used?);
        PinnedParts::new(&self.space, &Layout { descriptors, available, used, ..*layout })
    }

    /// Translates an address of the VMM's to the guest's; all `len` bytes must lie in one region.
    fn guest_address(&self, user: u64, len: usize) -> Result<u64, MemoryFault> {
        let within = |region: &MemRegion| {
            let offset = user.checked_sub(region.user)?;
            let end = offset.checked_add(len as u64)?;
            (end <= region.len).then(|| region.guest + offset)
        };
        self.regions.iter().find_map(within).ok_or(MemoryFault::Unmapped)
    }
}
