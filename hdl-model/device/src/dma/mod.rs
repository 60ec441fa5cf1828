//! DMA: the memory that a client made available to a function, reached by I/O address.
//!
//! [`Memory`] holds one function's mappings. The vfio-user thread adds and removes them; the engine's thread reads and
//! writes through a [`View`], which never waits for it: what a view can reach stays mapped while it lives, and an unmap
//! returns to the client only when no view is left that could use the range. Every access is checked to lie in what was
//! mapped, with the right to do it.
//!
//! A file behind the memory belongs to the client. Its pages must be in memory (memfd, tmpfs, hugetlbfs), so that no access
//! waits for a disk or a file server of the client's. The client may truncate it at any time: an access to lost pages
//! reports [`Fault::Shrunk`] (see `culvert_virtio`). A client has a share of the process's address space and mappings
//! ([`MemoryShare`](culvert_virtio::MemoryShare)); ranges of one file share a mapping when they are many, as with a virtual
//! IOMMU. Memory without a file descriptor is not reached through a view at all ([`Fault::Remote`]): the client may take as
//! long as it likes to answer. A thread of the function alone reaches it ([`ByMessage`]).

#![forbid(unsafe_code)]

mod by_message;
mod memory;

pub use by_message::ByMessage;
pub use culvert_virtio::{MemoryFault as Fault, PAGE_SIZE};
pub use memory::{MAX_REGIONS, Memory, View};
