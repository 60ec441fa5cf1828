//! A function of this host through Linux VFIO (`/dev/vfio`), in group mode with a type 1 version 2 IOMMU.

#[allow(unsafe_code, reason = "the IOMMU maps memory by address, and event descriptors are raw numbers")]
mod function;
mod sysfs;

pub use function::Function;

#[cfg(test)]
mod tests;
