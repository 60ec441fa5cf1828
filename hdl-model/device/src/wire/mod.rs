//! MAC ports: what carries Ethernet frames between boards and the rest of the world.
//!
//! The frame check sequence (IEEE 802.3, 3.2.9) is generated and checked where the medium carries it, which is the UNIX
//! datagram pair; kernel interfaces carry frames without it, their medium being memory.

mod af_packet;
mod capture;
mod datagram;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use culvert_packet::Reason;

pub use self::af_packet::AfPacket;
pub use self::capture::Capture;
pub use self::datagram::Datagram;

/// What a wire has for the MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// Nothing now.
    Nothing,
    /// A frame of so many bytes, without FCS.
    Frame(usize),
    /// A frame that is dropped, and why.
    Bad(Reason),
}

/// A medium.
pub trait Wire: Send {
    /// Takes the next frame off the medium.
    fn receive(&mut self, into: &mut [u8]) -> Received;

    /// Puts a frame on the medium, header and payload as one.
    ///
    /// # Errors
    /// It is lost: why.
    fn send(&mut self, header: &[u8], payload: &[u8]) -> Result<(), Reason>;

    /// Becomes readable when there is a frame.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether there is somebody at the other end. Asked a few times a second.
    fn link(&mut self) -> bool;

    /// Frames that the medium itself has lost since the last call, because they were not taken off in time.
    fn lost(&mut self) -> u64;
}

/// Which medium an uplink is on, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireSpec {
    /// `af_packet:INTERFACE`: a kernel interface, such as a veth.
    AfPacket(String),
    /// `unix:OWN,OTHER`: a pair of UNIX datagram sockets.
    Unix {
        /// Path of our socket.
        own: String,
        /// Path of the other end's.
        other: String,
    },
}

/// A medium that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWire(String);

impl fmt::Display for UnknownWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no wire: write af_packet:INTERFACE or unix:OWN,OTHER", self.0)
    }
}

impl std::error::Error for UnknownWire {}

impl FromStr for WireSpec {
    type Err = UnknownWire;

    fn from_str(text: &str) -> Result<Self, UnknownWire> {
        match text.split_once(':') {
            Some(("af_packet", interface)) if !interface.is_empty() => {
                Ok(Self::AfPacket(interface.to_owned()))
            }
            Some(("unix", paths)) => match paths.split_once(',') {
                Some((own, other)) => Ok(Self::Unix { own: own.to_owned(), other: other.to_owned() }),
                None => Err(UnknownWire(text.to_owned())),
            },
            _ => Err(UnknownWire(text.to_owned())),
        }
    }
}

impl WireSpec {
    /// Opens it.
    ///
    /// # Errors
    /// The interface or path cannot be used: which, and why.
    pub fn open(&self) -> Result<Box<dyn Wire>, String> {
        match self {
            Self::AfPacket(interface) => match AfPacket::open(interface) {
                Ok(wire) => Ok(Box::new(wire)),
                Err(e) => Err(format!(
                    "interface {interface}: {e}: does it exist, and is this root or has CAP_NET_RAW?"
                )),
            },
            Self::Unix { own, other } => match Datagram::bind(own.as_ref(), other.as_ref()) {
                Ok(wire) => Ok(Box::new(wire)),
                Err(e) => Err(format!("socket {own}: {e}")),
            },
        }
    }
}
