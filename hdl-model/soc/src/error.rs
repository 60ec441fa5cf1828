//! Why the SoC does not run.

use std::path::PathBuf;

use culvert_abi::image::ImageError;
use thiserror::Error;

/// Why the SoC does not run.
#[derive(Debug, Error)]
pub enum SocError {
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The emulator does not start.
    #[error("{program}: {source}: install it (Debian: qemu-system-misc) or name it with --qemu", program = .program.display())]
    Emulator {
        /// Its path.
        program: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The image is refused.
    #[error("the firmware image is refused ({0:?}): build it with `cargo xtask firmware` for this version")]
    Image(ImageError),
    /// No answer in time.
    #[error("the firmware does not {what} within {seconds} s{panic}")]
    Silent {
        /// What the board waited for.
        what: &'static str,
        /// How long that was waited for.
        seconds: u64,
        /// Its last words, after a colon.
        panic: String,
    },
}
