//! What can go wrong in a guest.

use std::time::Duration;

/// The result of something a guest does.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a guest cannot go on or refused a command.
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
    /// The device wrote something into a ring that the specification forbids.
    #[error("the device broke its {queue} queue: {detail}")]
    BrokenQueue {
        /// Which queue.
        queue: &'static str,
        /// What it did.
        detail: String,
    },
    /// The VF has another MAC address than expected.
    #[error(
        "the VF has MAC address {found}, not {expected}: is this the right VF, and is the policy applied?"
    )]
    WrongMac {
        /// What the VF says.
        found: String,
        /// What was asked for.
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
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The stack's thread has ended; its last words.
    #[error("the guest has stopped: {0}")]
    Stopped(String),
    /// The command could not be carried out.
    #[error("{0}")]
    Failed(String),
    /// The frame log ran full and cannot tell loss from what it did not record.
    #[error("the frame log is full at {0} frames: give it more room")]
    LogFull(usize),
    /// A file or the system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}
