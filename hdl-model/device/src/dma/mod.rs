//! DMA: the memory that a client made available, reached by I/O address.
//!
//! [`Memory`] holds one function's mappings. The vfio-user thread adds and removes them; the engine's thread reads and
//! writes through a [`View`], during whose life nothing is removed: an unmap returns to the client only when no view is
//! left that could use the range. Every access is checked to lie in what was mapped, with the right to do it.
//!
//! A file behind the memory belongs to the client, who may truncate it at any time. Touching the lost pages raises
//! SIGBUS; [`sigbus`](self) replaces them by empty ones, and the access that met them reports [`Fault::Shrunk`]. One
//! mapping covers a whole file, however many ranges of it the client maps: with a virtual IOMMU these are thousands.
//!
//! Memory without a file descriptor is reached by messages to the client ([`RemoteDma`](crate::vfio_user::RemoteDma)).

mod file;
mod memory;
mod sigbus;

pub use file::PAGE_SIZE;
pub use memory::{MAX_REGIONS, Memory, View};

/// Why an access to a client's memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Fault {
    /// Part of the range is not mapped.
    #[error("I/O address is not mapped")]
    Unmapped,
    /// Mapped without the right to do this.
    #[error("I/O address is mapped without the right to this access")]
    Denied,
    /// The file behind the memory has become shorter than what was mapped.
    #[error("the file behind the memory shrank")]
    Shrunk,
    /// A word that must be accessed whole is not aligned.
    #[error("I/O address is not aligned")]
    Misaligned,
    /// The client did not carry the access out.
    #[error("the client failed the access")]
    Remote,
}
