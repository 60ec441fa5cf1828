//! A guest's memory table (`SET_MEM_TABLE`). Buffers have addresses of the guest, vrings have addresses of the VMM.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use culvert_virtio::{
    AddressSpace, FileInfo, Layout, MapError, MappedFile, MemoryFault, MemoryShare, PinnedParts, Region,
    RegionError,
};

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

/// Why a memory table is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory region at guest address {guest:#x}, {len} bytes: {why}")]
pub(super) struct TableError {
    guest: u64,
    len: u64,
    why: RegionRefusal,
}

/// What is wrong with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum RegionRefusal {
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Place(#[from] RegionError),
}

/// A mapping and its file: device and inode.
type Mapping = ((u64, u64), Arc<MappedFile>);

/// The mapped regions.
pub(super) struct MemTable {
    regions: Vec<MemRegion>,
    files: Vec<Mapping>,
    /// The mappings, by guest physical address.
    space: Arc<AddressSpace>,
}

/// Maps the part of a file that a region needs, or finds it among mappings of the table before: a VMM sends the whole table
/// again for each memory block that is plugged in, and a large VM's share does not hold its memory twice.
fn map(
    region: &MemRegion,
    file: &OwnedFd,
    old: &[Mapping],
    share: &Arc<MemoryShare>,
) -> Result<Mapping, MapError> {
    let info = FileInfo::of(file)?;
    let key = (info.device, info.inode);
    let fits =
        |file: &MappedFile| file.position(region.offset, region.len).is_some() && file.check_intact().is_ok();
    let known = old.iter().find(|(other, file)| *other == key && fits(file));
    if let Some((_, file)) = known.filter(|_| region.offset.saturating_add(region.len) <= info.len) {
        return Ok((key, Arc::clone(file)));
    }
    MappedFile::map(file, &info, (region.offset, region.len), true, share).map(|file| (key, Arc::new(file)))
}

impl MemTable {
    /// Maps regions, of which `old` may have some already.
    ///
    /// # Errors
    /// One of them cannot be mapped, or overlaps another.
    pub(super) fn map(
        table: Vec<(MemRegion, OwnedFd)>,
        old: Option<&MemTable>,
        share: &Arc<MemoryShare>,
    ) -> Result<Self, TableError> {
        let old = old.map_or(&[][..], |old| &old.files);
        let mut space = AddressSpace::new();
        let (mut regions, mut files) = (Vec::with_capacity(table.len()), Vec::with_capacity(table.len()));
        for (region, file) in table {
            let MemRegion { guest, len, offset, .. } = region;
            let refused = |why| TableError { guest, len, why };
            let mapping = map(&region, &file, old, share).map_err(|error| refused(error.into()))?;
            let file = &mapping.1;
            let at = file.position(offset, len).ok_or(refused(MapError::OutOfRange.into()))?;
            let mapped =
                Region { size: len, offset: at, read: true, write: true, file: Some(Arc::clone(file)) };
            space.insert(guest, mapped).map_err(|error| refused(error.into()))?;
            regions.push(region);
            files.push(mapping);
        }
        Ok(MemTable { regions, files, space: Arc::new(space) })
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
