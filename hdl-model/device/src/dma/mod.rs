//! DMA: the memory that a client made available to a function, reached by I/O address.
//!
//! [`Memory`] holds one function's mappings. The vfio-user thread adds and removes them; the engine's thread reads and
//! writes through a [`View`], during whose life nothing is removed: an unmap returns to the client only when no view is
//! left that could use the range. Every access is checked to lie in what was mapped, with the right to do it.
//!
//! A file behind the memory belongs to the client, who may truncate it at any time: an access to lost pages reports
//! [`Fault::Shrunk`] (see `culvert_virtio`). One mapping covers a whole file, however many ranges of it the client maps:
//! with a virtual IOMMU these are thousands. Memory without a file descriptor is not reached through a view at all
//! ([`Fault::Remote`]): the client may take as long as it likes to answer. A thread of the function alone reaches it
//! ([`ByMessage`]).

#![forbid(unsafe_code)]

mod by_message;
mod memory;

pub use by_message::ByMessage;
pub(crate) use by_message::RingByMessage;
pub use culvert_virtio::{MemoryFault as Fault, PAGE_SIZE};
pub use memory::{MAX_REGIONS, Memory, View};
