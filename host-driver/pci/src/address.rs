//! `FunctionAddress`: the socket path or the PCI address of a function.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Error, Result};

/// The address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FunctionAddress {
    /// The path of a vfio-user socket.
    Socket(PathBuf),
    /// A PCI address on this host, `domain:bus:device.function`.
    Pci(String),
}

impl FunctionAddress {
    /// The socket's path, if the address is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Socket(path) => Some(path),
            Self::Pci(_) => None,
        }
    }
}

impl fmt::Display for FunctionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Pci(bdf) => f.write_str(bdf),
        }
    }
}

impl FromStr for FunctionAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('/') {
            return Ok(Self::Socket(text.into()));
        }
        full_address(text).map(Self::Pci).ok_or_else(|| Error::Address(text.into()))
    }
}

/// Completes a PCI address with its domain, in lower case: `03:00.0` becomes `0000:03:00.0`. `None`: the text is no PCI
/// address.
pub(crate) fn full_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, rest) = match parts[..] {
        [bus, rest] => ("0000", bus, rest),
        [domain, bus, rest] => (domain, bus, rest),
        _ => return None,
    };
    let (device, function) = rest.split_once('.')?;
    let function_ok = matches!(function.as_bytes(), [b'0'..=b'7']);
    let good = hex(domain, 4) && hex(bus, 2) && hex(device, 2) && function_ok;
    good.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}
