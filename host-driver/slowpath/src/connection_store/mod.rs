//! Connections outlive the daemon: they are kept in a file of the host, for the next one.
//!
//! A connection is state and its flow records are a cache of it, so connections are all that is kept. The file is mapped
//! memory: what is stored there is in the file at once, so that neither a killed daemon loses it nor a new connection waits
//! for it. It lies beside the API's socket, where a host has memory and no disk, and ends with the machine's run as the
//! connections do.
//!
//! * [`ConnectionFile`] has the file; one daemon at a time.
//! * [`HostPolicy::restore`](crate::HostPolicy::restore) takes over what is still allowed.

mod file;
mod format;
mod former;
mod lock;
mod mapping;
mod restore;

pub use file::ConnectionFile;
pub(crate) use file::clock;
pub use restore::Restored;

#[cfg(test)]
mod tests;
