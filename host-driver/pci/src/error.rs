//! Errors of device access: each names the thing, its value and, where there is one, the remedy.

use std::io;
use std::time::Duration;

/// The result of an access to a device.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a device could not be reached or refused what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket could not be connected.
    #[error("socket {path}: {source}: is culvert-emu running, and has the VF been enabled?")]
    Connect {
        /// The socket's path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The function cannot be opened through Linux VFIO.
    #[error("{device}: {problem}: {remedy}")]
    Open {
        /// The function's address on the bus.
        device: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The text is neither a socket path nor a PCI address.
    #[error(
        "\"{0}\" is no device: give the path of a vfio-user socket (with a '/') or a PCI address like 0000:03:00.0"
    )]
    Address(String),
    /// The device did not answer in time. The connection can still be used.
    #[error("{device}: no answer to {request} within {limit:?}: the device process is stopped or overloaded")]
    Timeout {
        /// The device.
        device: String,
        /// What was asked of it.
        request: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The other side closed the connection, or it was given up after a protocol error. Open the device again.
    #[error("{device}: connection lost ({reason}): open the device again")]
    Disconnected {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// The device answered with an error.
    #[error("{device}: {request} refused: {source}")]
    Refused {
        /// The device.
        device: String,
        /// What was asked of it, with its arguments.
        request: String,
        /// The error number that the device sent.
        source: io::Error,
    },
    /// The device broke its protocol.
    #[error("{device}: malformed {what}: {detail}")]
    Protocol {
        /// The device.
        device: String,
        /// The message or structure.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// An access outside a region, a buffer or the implemented interrupts.
    #[error("{thing}: access at {offset:#x} of {len} bytes is outside its size of {size:#x} or not aligned")]
    OutOfRange {
        /// What was accessed.
        thing: String,
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
        /// The size of the thing.
        size: u64,
    },
    /// The function lacks what the driver needs.
    #[error("{device}: has no {what}")]
    Missing {
        /// The device.
        device: String,
        /// What was looked for.
        what: String,
    },
    /// More VFs were asked for than the function has.
    #[error("{device}: {wanted} VFs asked for, but it has only {total}")]
    TooManyVfs {
        /// The device.
        device: String,
        /// The number asked for.
        wanted: u16,
        /// The number that there can be.
        total: u16,
    },
    /// Memory for the device could not be had.
    #[error("{len} bytes of DMA memory: {problem}")]
    Memory {
        /// The size asked for.
        len: usize,
        /// What went wrong.
        problem: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Wraps a system error with what was being done.
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }

    /// Whether the device has to be opened again before it can be used.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Self::Disconnected { .. })
    }
}
