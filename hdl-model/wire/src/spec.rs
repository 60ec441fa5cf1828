//! Which medium an uplink is on, as the command line names it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::af_packet::AfPacket;
use super::datagram::Datagram;
use super::medium::Wire;
use super::pcap::{PACE, Pcap};
use super::tap::Tap;

/// Which medium an uplink is on, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireSpec {
    /// `af_packet:INTERFACE`: a kernel interface, such as a veth.
    AfPacket(String),
    /// `tap:INTERFACE`: a TAP interface of the kernel's, made if it is not there.
    Tap(String),
    /// `pcap:IN,OUT,PACE`: frames come in from one capture file and go out into another. Either may be left empty, the pace
    /// may be left out.
    Pcap {
        /// Where frames come from.
        input: Option<PathBuf>,
        /// Where they go.
        output: Option<PathBuf>,
        /// How many come in a second, at most.
        pace: u32,
    },
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
        let known = "af_packet:INTERFACE, tap:INTERFACE, unix:OWN,OTHER or pcap:IN,OUT,FRAMES_PER_SECOND";
        write!(f, "{:?} is no wire: write {known}", self.0)
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
            Some(("tap", interface)) if !interface.is_empty() => Ok(Self::Tap(interface.to_owned())),
            Some(("pcap", files)) => pcap_spec(files).ok_or_else(|| UnknownWire(text.to_owned())),
            Some(("unix", paths)) => match paths.split_once(',') {
                Some((own, other)) => Ok(Self::Unix { own: own.to_owned(), other: other.to_owned() }),
                None => Err(UnknownWire(text.to_owned())),
            },
            _ => Err(UnknownWire(text.to_owned())),
        }
    }
}

/// Input, output, pace; at least one of the files.
fn pcap_spec(text: &str) -> Option<WireSpec> {
    let mut parts = text.splitn(3, ',');
    let mut file = || parts.next().filter(|path| !path.is_empty()).map(PathBuf::from);
    let (input, output) = (file(), file());
    let pace = match parts.next() {
        Some(pace) => pace.parse().ok().filter(|pace| *pace > 0)?,
        None => PACE,
    };
    (input.is_some() || output.is_some()).then_some(WireSpec::Pcap { input, output, pace })
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
            Self::Tap(interface) => match Tap::open(interface) {
                Ok(wire) => Ok(Box::new(wire)),
                Err(e) => Err(format!(
                    "TAP interface {interface}: {e}: is it a TAP that no process uses, and is this root, its owner or has \
                     CAP_NET_ADMIN?"
                )),
            },
            Self::Pcap { input, output, pace } => {
                let (input, output) = (input.as_deref(), output.as_deref());
                let shown = |path: Option<&Path>| path.unwrap_or(Path::new("")).display().to_string();
                match Pcap::open(input, output, *pace) {
                    Ok(wire) => Ok(Box::new(wire)),
                    Err(e) => Err(format!("capture files {:?}, {:?}: {e}", shown(input), shown(output))),
                }
            }
            Self::Unix { own, other } => match Datagram::bind(own.as_ref(), other.as_ref()) {
                Ok(wire) => Ok(Box::new(wire)),
                Err(e) => Err(format!("socket {own}: {e}")),
            },
        }
    }
}
