//! Capture files: reads pcap and pcapng, writes pcapng.

mod read;
mod write;

#[cfg(test)]
mod tests;

use std::io;

use thiserror::Error;

pub(crate) use read::Reader;
pub(crate) use write::Writer;

/// Longest frame that is taken: anything longer is a broken file.
const LONGEST: usize = 1 << 18;
/// Ethernet (LINKTYPE_ETHERNET).
const ETHERNET: u16 = 1;

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Nanoseconds since the epoch.
    pub(crate) time: u64,
    /// First byte of Ethernet first, no FCS.
    pub(crate) frame: Vec<u8>,
    /// Its length before the capture cut it short.
    pub(crate) original: usize,
}

/// A file that is no capture, or a broken one.
#[derive(Debug, Error)]
pub(crate) enum Broken {
    /// Neither pcap nor pcapng.
    #[error("it is neither pcap nor pcapng")]
    Form,
    /// Not Ethernet.
    #[error("its frames are of link type {0}, not Ethernet (1)")]
    Link(u16),
    /// It ends in the middle of something.
    #[error("it ends within {what} at byte {at}")]
    Short {
        /// What is cut.
        what: &'static str,
        /// Where that begins.
        at: u64,
    },
    /// It contradicts itself.
    #[error("{what} at byte {at} makes no sense")]
    At {
        /// What is wrong.
        what: &'static str,
        /// Where that begins.
        at: u64,
    },
    /// The system cannot read it.
    #[error("{0}")]
    Read(#[from] io::Error),
}

impl Broken {
    /// What to do about it.
    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Broken::Form => "give a file of tcpdump, dumpcap or Wireshark; unpack it if it is compressed",
            Broken::Link(_) => "capture on an Ethernet interface, not on \"any\" or a tunnel",
            Broken::Short { .. } => "capture again, or copy the file again: its end is missing",
            Broken::At { .. } => "copy the file again, or repair it, for example with pcapfix",
            Broken::Read(_) => "check the path and its permissions",
        }
    }
}
