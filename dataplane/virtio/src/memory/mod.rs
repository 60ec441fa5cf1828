//! A guest's memory: mapped files, which may shrink at any time, and memory that only messages reach.

mod access;
mod address_space;
mod mapped_file;
mod place;
mod region_table;
mod share;
mod shared_space;
mod sigbus;

pub use access::{GuestMemory, WordMemory};
pub use address_space::{AddressSpace, RegionError};
pub use mapped_file::{FileInfo, MappedFile, PAGE_SIZE};
pub use place::Place;
pub use region_table::Region;
pub use share::{MAX_MAPPED, MAX_MAPPINGS, MapError, MemoryShare};
pub use shared_space::{SharedSpace, SpaceChange, SpaceView};
