//! Why a capture cannot be read, or not to its end.

use std::io;

use thiserror::Error;

/// A file that is no capture, or a broken one.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Neither pcap nor pcapng.
    #[error("it is neither pcap nor pcapng")]
    Form,
    /// Not Ethernet.
    #[error("its frames are of link type {0}, not Ethernet (1)")]
    Link(u16),
    /// It ends in the middle of something.
    #[error("it ends within {what} at byte {at}")]
    CutOff {
        /// What is cut off.
        what: &'static str,
        /// Where that begins.
        at: u64,
    },
    /// It contradicts itself.
    #[error("{what} at byte {at} makes no sense")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where that begins.
        at: u64,
    },
    /// The system cannot read it.
    #[error("{0}")]
    Read(#[from] io::Error),
}

impl CaptureError {
    /// Whether only the end of the file is missing: all frames before are whole.
    pub const fn is_cut_off(&self) -> bool {
        matches!(self, CaptureError::CutOff { .. })
    }

    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            CaptureError::Form => {
                "give a file of tcpdump, dumpcap or Wireshark; unpack it if it is compressed"
            }
            CaptureError::Link(_) => "capture on an Ethernet interface, not on \"any\" or a tunnel",
            CaptureError::CutOff { .. } => "capture again, or copy the file again: its end is missing",
            CaptureError::Malformed { .. } => "copy the file again, or repair it, for example with pcapfix",
            CaptureError::Read(_) => "check the path and its permissions",
        }
    }
}
