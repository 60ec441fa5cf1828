//! The connection store: a file that keeps connections across restarts of the daemon.
//!
//! Connections are the state; flow records are only a cache of it, so the file has connections alone. Changes are
//! written before the packets leave that they decide on, so that a killed daemon loses nothing. The file lies beside the API's socket, on a file system in memory: a new
//! connection does not wait for a disk. Like the connections, the file is void after a reboot. One that was cut,
//! removed or replaced is noticed within a second and written anew.
//!
//! * [`ConnectionFile`] is the file, which one daemon at a time uses.
//! * [`restore`] takes over the previous daemon's connections that the policy still allows.

mod file;
mod format;
mod lock;
mod previous;
mod restore;
mod writer;

pub use file::ConnectionFile;
pub(crate) use file::monotonic_ms;
pub use restore::Restored;
pub(crate) use restore::restore;

#[cfg(test)]
mod tests;
