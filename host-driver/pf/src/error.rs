//! Errors of the driver: each names the NIC, what was asked, and what to do about it.

use std::time::Duration;

use culvert_abi::command::Op;
use culvert_abi::image::ImageError;
use culvert_packet::Reason;

/// The result of an operation on the NIC.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the NIC could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The function cannot be reached.
    #[error(transparent)]
    Pci(#[from] culvert_pci::Error),
    /// It is some other device.
    #[error(
        "{device}: is {vendor:04x}:{id:04x}, not a Culvert NIC: give the address of its physical function"
    )]
    NotOurs {
        /// The function.
        device: String,
        /// Its vendor.
        vendor: u16,
        /// Its device id.
        id: u16,
    },
    /// Versions do not fit.
    #[error(
        "{device}: the {part} speaks version {theirs} of the interface, this driver {ours}: update the {part}"
    )]
    Abi {
        /// The function.
        device: String,
        /// Board or firmware.
        part: &'static str,
        /// Its version.
        theirs: u32,
        /// The driver's.
        ours: u32,
    },
    /// The firmware image is not usable.
    #[error("firmware image: {}: build it with `cargo xtask firmware`", image_problem(*reason))]
    Image {
        /// What is wrong with it.
        reason: ImageError,
    },
    /// The board refused the image.
    #[error("{device}: the board refused the firmware image: {reason}: build it with `cargo xtask firmware`")]
    ImageRefused {
        /// The function.
        device: String,
        /// What the board says.
        reason: String,
    },
    /// The firmware did not get ready.
    #[error("{device}: the firmware is not ready after {limit:?} (state {state}){}", last_words(panic))]
    NotReady {
        /// The function.
        device: String,
        /// State register.
        state: String,
        /// How long was waited.
        limit: Duration,
        /// Text of its panic, if there is one.
        panic: String,
    },
    /// The firmware is dead; the board starts it again, and this can be tried again then.
    #[error("{device}: the firmware is not running; the board starts it again")]
    FirmwareDead {
        /// The function.
        device: String,
    },
    /// A mailbox request failed.
    #[error("{device}: mailbox request {request} refused: {reason}")]
    Mailbox {
        /// The function.
        device: String,
        /// Which.
        request: &'static str,
        /// Why.
        reason: String,
    },
    /// The firmware did not answer in time.
    #[error(
        "{device}: no answer to {what} within {limit:?}: the firmware hangs or the machine is overloaded"
    )]
    Timeout {
        /// The function.
        device: String,
        /// What was asked.
        what: String,
        /// How long was waited.
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
    /// A ring's memory no longer makes sense, or the board stopped it.
    #[error("{device}: queue {queue} has stopped at a fault: open the NIC again")]
    QueueFault {
        /// The function.
        device: String,
        /// Queue number.
        queue: usize,
    },
    /// A frame or payload that no buffer holds.
    #[error("{len} bytes are more than a packet buffer of the NIC holds ({limit})")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// There is no such queue.
    #[error("{device}: has no VMQ {vmq}; it has {count}")]
    NoVmq {
        /// The function.
        device: String,
        /// The number asked for.
        vmq: u16,
        /// How many there are.
        count: u16,
    },
    /// A thread of the driver could not be started, or random numbers could not be had.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

fn last_words(panic: &str) -> String {
    if panic.is_empty() { String::new() } else { format!(": it panicked: {panic}") }
}

/// What is wrong with an image, in words.
pub(crate) fn image_problem(reason: ImageError) -> &'static str {
    match reason {
        ImageError::Length => "it is shorter than its header says, or too long",
        ImageError::Magic => "it is not a firmware image",
        ImageError::Abi => "it was built for another version of the interface",
        ImageError::Address => "it does not lie in the SoC's image area",
        ImageError::Crc => "its checksum is wrong, it was damaged",
    }
}
