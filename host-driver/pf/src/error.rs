//! Errors of the driver: each names the NIC, the value at fault and, where there is one, the remedy.

use std::time::Duration;

use culvert_abi::command::Op;
use culvert_abi::image::ImageError;
use culvert_packet::Reason;

/// The result of an operation on the NIC.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on the NIC failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The access to the PCI function failed.
    #[error(transparent)]
    Pci(#[from] culvert_pci::Error),
    /// The function is not a Culvert PF.
    #[error(
        "{device}: is {vendor:04x}:{id:04x}, not a Culvert NIC: give the address of a Culvert NIC's physical function"
    )]
    WrongDevice {
        /// The function.
        device: String,
        /// Its PCI vendor id.
        vendor: u16,
        /// Its PCI device id.
        id: u16,
    },
    /// Driver and NIC have different versions of the interface.
    #[error(
        "{device}: the {part} has version {found} of the interface, this driver has {expected}: update the {part}"
    )]
    Abi {
        /// The function.
        device: String,
        /// Board or firmware.
        part: &'static str,
        /// Its version.
        found: u32,
        /// The driver's version.
        expected: u32,
    },
    /// The firmware image is not usable.
    #[error("firmware image not usable: {}: build it with `cargo xtask firmware`", image_problem(*reason))]
    Image {
        /// What is wrong with it.
        reason: ImageError,
    },
    /// The board refused the image.
    #[error("{device}: the board refused the firmware image: {reason}: build it with `cargo xtask firmware`")]
    ImageRefused {
        /// The function.
        device: String,
        /// Why.
        reason: String,
    },
    /// The firmware did not become ready in time.
    #[error(
        "{device}: the firmware is not ready after {limit:?} (state {state}){}: see the log of the board",
        panicked(panic)
    )]
    NotReady {
        /// The function.
        device: String,
        /// Its state.
        state: String,
        /// The time limit.
        limit: Duration,
        /// The text of its panic; empty if it did not panic.
        panic: String,
    },
    /// The firmware is dead. Retry after the board has restarted it.
    #[error("{device}: the firmware is not running: retry after the board has restarted it")]
    FirmwareDead {
        /// The function.
        device: String,
    },
    /// The function was removed: its registers read as ones.
    #[error("{device}: was removed: its registers read as ones")]
    Removed {
        /// The function.
        device: String,
    },
    /// There is no NIC now.
    #[error("{device}: there is no NIC now: {problem}: it is taken again when it returns")]
    Absent {
        /// Where it is expected.
        device: String,
        /// Why it is not there.
        problem: String,
    },
    /// The firmware refused a mailbox request.
    #[error("{device}: mailbox request {request} refused: {reason}: load an image built with this driver")]
    Mailbox {
        /// The function.
        device: String,
        /// The request.
        request: &'static str,
        /// Why.
        reason: String,
    },
    /// The firmware did not answer in time.
    #[error("{device}: no answer to {what} within {limit:?}: the firmware hangs or the host is overloaded")]
    Timeout {
        /// The function.
        device: String,
        /// The request.
        what: String,
        /// The time limit.
        limit: Duration,
    },
    /// The firmware refused a command.
    #[error("{device}: {op:?} refused: {}", reason.describe())]
    Refused {
        /// The function.
        device: String,
        /// The command.
        op: Op,
        /// Why.
        reason: Reason,
    },
    /// The board stopped a queue, or its ring holds an impossible index.
    #[error("{device}: queue {queue} has stopped at a fault: open the NIC again")]
    QueueFault {
        /// The function.
        device: String,
        /// Queue number.
        queue: usize,
    },
    /// A frame or payload is longer than a packet buffer.
    #[error("a frame of {len} bytes is too long for a packet buffer of {limit} bytes: lower the MTU")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// Bytes that a buffer holds.
        limit: usize,
    },
    /// The NIC has no VMQ of this number.
    #[error("{device}: has no VMQ {vmq}: it has {count}, numbered from 0")]
    NoVmq {
        /// The function.
        device: String,
        /// The requested number.
        vmq: u16,
        /// How many VMQs it has.
        count: u16,
    },
    /// The operating system refused a thread or random numbers.
    #[error("{what}: {source}")]
    System {
        /// The operation.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the device has to be opened again before it can be used.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Error::Pci(e) => e.is_disconnect(),
            Error::Removed { .. } => true,
            _ => false,
        }
    }

    /// Whether the board does not answer, for now.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Error::Pci(culvert_pci::Error::Timeout { .. }))
    }

    /// Whether the board answers and its firmware does not.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }

    /// Whether no later attempt can succeed: this is another device, or this driver or image is of another version.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(
            self,
            Error::WrongDevice { .. } | Error::Abi { .. } | Error::Image { .. } | Error::ImageRefused { .. }
        )
    }
}

fn panicked(panic: &str) -> String {
    if panic.is_empty() { String::new() } else { format!(", its last words: {panic}") }
}

/// Describes what is wrong with an image.
pub(crate) fn image_problem(reason: ImageError) -> &'static str {
    match reason {
        ImageError::Length => "it is shorter than its header says, or too long",
        ImageError::Magic => "it is not a firmware image",
        ImageError::Abi => "it was built for another version of the interface",
        ImageError::Address => "its load address is outside the SoC's image area",
        ImageError::Crc => "its checksum is wrong: the file is damaged",
    }
}
