//! A guest's memory as its VMM describes it: at the guest's addresses, which buffers have, and at the VMM's own, which rings
//! have.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use culvert_virtio::{AddressSpace, FileInfo, Layout, MappedFile, MemoryFault, PinnedParts, Region};

/// Bytes of all regions of a guest: address space is all guests' together.
const LONGEST: u64 = 1 << 42;

/// A region as the VMM describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description {
    /// Where the guest sees it.
    pub(super) guest: u64,
    /// Where the VMM sees it, which is how it names the rings.
    pub(super) user: u64,
    pub(super) len: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
}

/// All regions.
pub(super) struct Memory {
    descriptions: Vec<Description>,
    /// By the guest's addresses.
    space: Arc<AddressSpace>,
}

/// Maps as much of a region's file as the region needs. `None`: the file is too short, or an access to it could wait for a
/// disk or a file server.
fn map(about: &Description, file: &OwnedFd) -> Option<MappedFile> {
    let len = about.offset.checked_add(about.len)?;
    let info = FileInfo::of(file).ok().filter(|info| info.in_memory && len <= info.len)?;
    MappedFile::map(file, &info, len, true).ok()
}

impl Memory {
    /// Maps regions. `None`: one of them cannot be mapped, or overlaps another.
    pub(super) fn new(regions: Vec<(Description, OwnedFd)>) -> Option<Self> {
        let (mut space, mut left) = (AddressSpace::new(), LONGEST);
        let mut descriptions = Vec::with_capacity(regions.len());
        for (about, file) in regions {
            left = left.checked_sub(about.offset.checked_add(about.len)?)?;
            let file = Some(Arc::new(map(&about, &file)?));
            let region = Region { size: about.len, offset: about.offset, read: true, write: true, file };
            space.insert(about.guest, region).ok()?;
            descriptions.push(about);
        }
        Some(Memory { descriptions, space: Arc::new(space) })
    }

    /// Looks up the parts of a ring, whose addresses are the VMM's.
    pub(super) fn parts(&self, layout: &Layout) -> Result<PinnedParts, MemoryFault> {
        let [descriptors, available, used] = layout.parts().map(|(at, len)| self.guest_address(at, len));
        let (descriptors, available, used) = (descriptors?, available?, used?);
        PinnedParts::new(&self.space, &Layout { descriptors, available, used, ..*layout })
    }

    /// The guest's address of `len` bytes at an address of the VMM's, which lie in one region.
    fn guest_address(&self, user: u64, len: usize) -> Result<u64, MemoryFault> {
        let within = |about: &Description| {
            let offset = user.checked_sub(about.user)?;
            let end = offset.checked_add(len as u64)?;
            (end <= about.len).then(|| about.guest + offset)
        };
        self.descriptions.iter().find_map(within).ok_or(MemoryFault::Unmapped)
    }
}
