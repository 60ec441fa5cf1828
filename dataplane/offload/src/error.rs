//! Errors of a NIC: each names the NIC, the value at fault and, where there is one, the remedy.

use std::time::Duration;

use culvert_packet::Reason;

/// The result of an operation on a NIC.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on a NIC failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The firmware does not run, or the switch has stopped.
    #[error(
        "{device}: not running: wait until the board has restarted the firmware; for a switch, restart culvertd"
    )]
    NotRunning {
        /// The NIC.
        device: String,
    },
    /// The NIC did not answer in time.
    #[error("{device}: no answer to {what} within {limit:?}: the NIC hangs or the host is overloaded")]
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
    #[error("a frame of {len} bytes is too long for a packet buffer of {limit} bytes: lower the MTU")]
    TooLong {
        /// Length in bytes.
        len: usize,
        /// Bytes that a buffer holds.
        limit: usize,
    },
    /// The NIC has no VMQ of this number.
    #[error("{device}: has no VMQ {vmq}: it has {count}, numbered from 0")]
    NoVmq {
        /// The NIC.
        device: String,
        /// The requested number.
        vmq: u16,
        /// How many VMQs it has.
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
    /// Any other error of the NIC's driver.
    #[error(transparent)]
    Driver(Box<dyn std::error::Error + Send + Sync>),
}
