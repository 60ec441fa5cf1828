//! A function of this machine through Linux VFIO (`/dev/vfio`), in group mode with a type 1 version 2 IOMMU.

#[allow(unsafe_code, reason = "memory is given to the IOMMU by address, event descriptors by number")]
mod function;
mod sysfs;

pub use function::Function;
pub use sysfs::full_address;

#[cfg(test)]
mod tests;
