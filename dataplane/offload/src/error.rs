//! Errors of a NIC: each names the NIC, what was asked, and what to do about it.

use std::time::Duration;

use culvert_packet::Reason;

/// The result of an operation on a NIC.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a NIC could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The firmware does not run, or the switch has stopped.
    #[error(
        "{device}: is not running: a NIC's board restarts its firmware; a switch needs a restart of culvertd"
    )]
    NotRunning {
        /// The NIC.
        device: String,
    },
    /// The NIC did not answer in time.
    #[error("{device}: no answer to {what} within {limit:?}: it hangs or the machine is overloaded")]
    Timeout {
        /// The NIC.
        device: String,
        /// The request.
        what: String,
        /// The time limit.
        limit: Duration,
    },
    /// The NIC refused a command.
    #[error("{device}: {command} refused: {}", reason.describe())]
    Refused {
        /// The NIC.
        device: String,
        /// The command.
        command: String,
        /// Why.
        reason: Reason,
    },
    /// A frame or payload is longer than a packet buffer.
    #[error("{len} bytes are more than a packet buffer of the NIC holds ({limit})")]
    TooLong {
        /// Length in bytes.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// There is no such VMQ.
    #[error("{device}: has no VMQ {vmq}; it has {count}")]
    NoVmq {
        /// The NIC.
        device: String,
        /// The requested number.
        vmq: u16,
        /// How many VMQs there are.
        count: u16,
    },
    /// The operating system refused memory, threads or file descriptors.
    #[error("{what}: {source}")]
    System {
        /// The operation.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The driver reports another error.
    #[error(transparent)]
    Driver(Box<dyn std::error::Error + Send + Sync>),
}
