//! The backend of a vfio-user session: the trait that a device implements.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::RemoteDma;

/// A region's part that the client may map, as a file of ours.
#[derive(Clone, Copy)]
pub struct SparseMmap<'a> {
    /// The file behind the region; the region's offset 0 is the file's.
    pub fd: BorrowedFd<'a>,
    /// Offset and length of each area, both multiples of the page size.
    pub areas: &'a [(u64, u64)],
}

/// A region: a BAR, or configuration space. A region of size 0 does not exist.
#[derive(Clone, Copy, Default)]
pub struct Region<'a> {
    /// Length in bytes.
    pub size: u64,
    /// Ranges that may be mapped; messages reach all others.
    pub mmap: Option<SparseMmap<'a>>,
}

/// Action of a `SET_IRQS` on a range of interrupts.
#[derive(Debug)]
pub enum IrqAction {
    /// Signal these eventfds from now on; fewer than the range's length are never given.
    Assign(Vec<OwnedFd>),
    /// Signal nothing any more.
    Release,
    /// Signal now: interrupts whose flag is set.
    Trigger(Vec<bool>),
    /// Mask those whose flag is set.
    Mask(Vec<bool>),
    /// Unmask those whose flag is set.
    Unmask(Vec<bool>),
}

/// A checked `SET_IRQS`: `start + count` lies inside the index, and a list in `action` has `count` elements.
#[derive(Debug)]
pub struct IrqSet {
    /// Interrupt index, for example [`MSIX_INDEX`](super::MSIX_INDEX).
    pub index: u32,
    /// First interrupt.
    pub start: u32,
    /// Number of interrupts.
    pub count: u32,
    /// What to do.
    pub action: IrqAction,
}

/// A `DMA_MAP`: a range of I/O addresses. Not yet checked against other ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaRegion {
    /// First I/O address.
    pub iova: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where the range begins in its file.
    pub offset: u64,
    /// The device may read it.
    pub read: bool,
    /// The device may write it.
    pub write: bool,
}

/// A PCI function behind a vfio-user socket. Methods are called from the session's thread, one at a time; the device's
/// own threads use the same object, so it locks what they share. An error becomes the request's error reply.
pub trait Function: Send + Sync {
    /// Region `index`, 0 to 8.
    fn region(&self, index: u32) -> Region<'_>;

    /// Number of interrupts of index `index`, 0 to 4.
    fn irq_count(&self, index: u32) -> u32;

    /// Reads a region. The range is inside the region.
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// Writes a region. The range is inside the region.
    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno>;

    /// Makes memory of the client available, through `fd` or, without one, through [`RemoteDma`].
    fn dma_map(&self, region: DmaRegion, fd: Option<OwnedFd>) -> Result<(), Errno>;

    /// Takes back every range inside `iova .. iova + size`, or all with `None`. Nothing uses them once it returns.
    /// Returns the number of bytes taken back.
    fn dma_unmap(&self, range: Option<(u64, u64)>) -> Result<u64, Errno>;

    /// Sets interrupts up, masks or triggers them.
    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno>;

    /// Resets the function, as FLR does.
    fn reset(&self);

    /// A client has agreed on a version; `remote` reaches its memory until it is gone.
    fn connected(self: Arc<Self>, remote: Arc<RemoteDma>);

    /// The client is gone, with its memory and its eventfds.
    fn disconnected(&self);
}
