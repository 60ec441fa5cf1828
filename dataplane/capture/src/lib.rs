//! Capture files: reads pcap and pcapng, writes pcapng.
//!
//! A capture that ends in the middle of a frame, because it was copied while it was written or its disk was full, gives all
//! whole frames first, and then [`CaptureError::CutOff`].
//!
//! ```
//! use culvert_capture::{Reader, Writer};
//!
//! let mut file = Vec::new();
//! let mut writer = Writer::new(&mut file, ["uplink0"])?;
//! writer.frame(0, 1_000, &[7; 60], "")?;
//! writer.frame(0, 2_000, &[8; 60], "")?;
//! writer.flush()?;
//! drop(writer);
//! let mut reader = Reader::new(&file[..file.len() - 1])?;
//! assert_eq!(reader.next()?.unwrap().frame, [7; 60]);
//! assert!(reader.next().unwrap_err().is_cut_off());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate `pcap-parser` reads these formats too, but says neither where a file is broken nor what its obsolete packet
//! blocks hold, and leaves time stamps to its callers.

#![forbid(unsafe_code)]

mod error;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use error::CaptureError;
pub use reader::{Reader, Step};
pub use writer::Writer;

/// Longest frame that is taken: anything longer is a broken file.
const LONGEST: usize = 1 << 18;
/// Ethernet (LINKTYPE_ETHERNET).
const ETHERNET: u16 = 1;

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds since the epoch.
    pub time: u64,
    /// First byte of Ethernet first, no FCS.
    pub frame: Vec<u8>,
    /// Its length before the capture cut it short.
    pub original: usize,
}
