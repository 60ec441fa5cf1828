//! One host's configuration, derived from the fabric.

mod config;
mod derivation;
mod remote;
#[cfg(test)]
mod tests;

pub use config::{HostConfig, LocalVport, Site, SnapshotError};
pub use derivation::host_config;
