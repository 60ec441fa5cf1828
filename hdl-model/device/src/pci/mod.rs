//! Parts of every PCIe function: configuration space, BARs, MSI-X and, for a physical function, SR-IOV.
//!
//! * [`ConfigBuilder`] lays configuration space out: header, capabilities and extended capabilities, each byte with a
//!   mask of the bits that software may write.
//! * [`Endpoint`] is a running function's share of it: BAR sizing, bus mastering, function-level reset, MSI-X, INTx.
//! * [`Sriov`] gives the SR-IOV capability its meaning: which registers lock when VFs are enabled.

#![forbid(unsafe_code)]

mod config;
mod endpoint;
mod intx;
mod msix;
mod sriov;

pub use config::{Bar, ConfigBuilder, ConfigSpace, Identity};
pub use endpoint::{ConfigEvent, Endpoint};
pub use intx::Intx;
pub use msix::Msix;
pub use sriov::{Sriov, SriovLayout, VfState};

/// Bytes of configuration space.
pub const CONFIG_LEN: usize = 4096;
