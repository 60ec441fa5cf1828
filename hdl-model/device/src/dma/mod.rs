//! DMA: the memory that a client made available to a function, reached by I/O address.
//!
//! [`Memory`] holds one function's mappings. The vfio-user thread adds and removes them; the engine's thread reads and
//! writes through a [`View`], during whose life nothing is removed: an unmap returns to the client only when no view is
//! left that could use the range. Every access is checked to lie in what was mapped, with the right to do it.
//!
//! A file behind the memory belongs to the client, who may truncate it at any time: an access to lost pages reports
//! [`Fault::Shrunk`] (see `culvert_virtio`). One mapping covers a whole file, however many ranges of it the client maps:
//! with a virtual IOMMU these are thousands. Memory without a file descriptor is reached by messages to the client
//! ([`RemoteDma`](crate::vfio_user::RemoteDma)).

#![forbid(unsafe_code)]

mod memory;

pub use culvert_virtio::{MemoryFault as Fault, PAGE_SIZE};
pub use memory::{MAX_REGIONS, Memory, View};
