//! Errors of a guest.

use std::time::Duration;

/// Result of a guest's operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a guest has ended or refused a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The VF cannot be reached.
    #[error(transparent)]
    Device(#[from] culvert_pci::Error),
    /// The function is not a virtio-net device of version 1, or lacks something that such a device must have.
    #[error("{device}: not usable as a virtio 1 network device: {detail}")]
    NotVirtio {
        /// The function.
        device: String,
        /// What is missing or wrong.
        detail: String,
    },
    /// The device violated the specification of a ring.
    #[error("the device broke its {queue} queue: {detail}")]
    BrokenQueue {
        /// The queue.
        queue: &'static str,
        /// The violation.
        detail: String,
    },
    /// The VF has another MAC address than expected.
    #[error(
        "the VF has MAC address {found}, not {expected}: is this the right VF, and is the policy applied?"
    )]
    WrongMac {
        /// The VF's address.
        found: String,
        /// The expected address.
        expected: String,
    },
    /// A frame does not fit a transmit buffer.
    #[error("a frame of {len} bytes: must be 14 to {max}")]
    FrameLength {
        /// Its length.
        len: usize,
        /// The longest one possible.
        max: usize,
    },
    /// The transmit ring stayed full.
    #[error("the transmit ring stayed full for {0:?}: the device takes no frames")]
    RingFull(Duration),
    /// The stack did not answer in time.
    #[error("{what} did not end within {limit:?}")]
    Timeout {
        /// The operation.
        what: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The stack's thread has ended, for this reason.
    #[error("the guest has stopped: {0}")]
    Stopped(String),
    /// The command failed.
    #[error("{0}")]
    Failed(String),
    /// The frame log is full: frames are missing in it, so losses cannot be counted.
    #[error("the frame log is full at {0} frames: give it more room")]
    LogFull(usize),
    /// A file or the system failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}
