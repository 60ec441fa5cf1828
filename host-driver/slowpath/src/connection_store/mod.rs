//! The connection store: a file that keeps connections across restarts of the daemon.
//!
//! Connections are the state; flow records are only a cache of it, so the file has connections alone. It is mapped memory:
//! each change is in the file at once, a killed daemon loses nothing, and a new connection does not wait for a disk. The
//! file lies beside the API's socket, on a file system in memory. Like the connections, it is void after a reboot.
//!
//! * [`ConnectionFile`] is the file, which one daemon at a time uses.
//! * [`restore`] takes over the previous daemon's connections that the policy still allows.

mod file;
mod format;
mod lock;
mod mapping;
mod previous;
mod restore;
mod writer;

pub use file::ConnectionFile;
pub(crate) use file::monotonic_ms;
pub use restore::Restored;
pub(crate) use restore::restore;

#[cfg(test)]
mod tests;
