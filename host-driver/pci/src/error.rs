//! Errors of device access: each names the thing, its value and, where there is one, the remedy.

use std::io;
use std::time::Duration;

/// The result of an access to a device.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an access to a device failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket could not be connected.
    #[error("socket {path}: {source}: is culvert-emu running, and has the VF been enabled?")]
    Connect {
        /// The socket's path.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// The function cannot be opened through Linux VFIO.
    #[error("{device}: {problem}: {remedy}")]
    Open {
        /// The function's address on the bus.
        device: String,
        /// The problem.
        problem: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The text is neither a socket path nor a PCI address.
    #[error(
        "\"{0}\" is not a device address: give the path of a vfio-user socket (with a '/') or a PCI address like 0000:03:00.0"
    )]
    Address(String),
    /// The device did not answer in time. The connection can still be used.
    #[error("{device}: no answer to {request} within {limit:?}: the device process is stopped or overloaded")]
    Timeout {
        /// The device.
        device: String,
        /// The request.
        request: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The device closed the connection, or the client closed it after a protocol error. Open the device again.
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
        /// The request.
        request: String,
        /// The error that the device sent.
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
        /// The region, buffer or table.
        thing: String,
        /// Offset of the access.
        offset: u64,
        /// Length of the access.
        len: u64,
        /// Size of the thing.
        size: u64,
    },
    /// The function lacks what the driver needs.
    #[error("{device}: has no {what}")]
    Missing {
        /// The device.
        device: String,
        /// The missing part.
        what: String,
    },
    /// The function has fewer VFs than requested.
    #[error("{device}: cannot enable {wanted} VFs: it has at most {total}")]
    TooManyVfs {
        /// The device.
        device: String,
        /// The requested number.
        wanted: u16,
        /// TotalVFs of the function.
        total: u16,
    },
    /// DMA memory could not be allocated or mapped.
    #[error("cannot allocate {len} bytes of DMA memory: {problem}")]
    Memory {
        /// The requested size.
        len: usize,
        /// The problem.
        problem: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// The operation.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

impl Error {
    /// Wraps a system error with the operation that failed.
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }

    /// Whether the device has to be opened again before it can be used.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Self::Disconnected { .. })
    }
}
