//! Names of interfaces.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::net::netdevice;

/// An interface's name, zero-terminated as the kernel's requests have it.
#[derive(Clone, Copy)]
pub(crate) struct IfName(pub(super) [u8; libc::IFNAMSIZ]);

impl IfName {
    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidInput`: the name is empty, longer than 15 bytes, or has a character that the kernel does not accept.
    pub(crate) fn new(interface: &str) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        // The kernel would replace %d by a number; a zero must follow the name.
        if interface.is_empty() || interface.len() >= name.len() || interface.contains(['%', '/', '\0']) {
            let why = "an interface's name has 1 to 15 bytes, and neither % nor /";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        name[..interface.len()].copy_from_slice(interface.as_bytes());
        Ok(IfName(name))
    }

    /// The current name of the interface with this index, in the network namespace of `socket`.
    pub(crate) fn by_index(socket: BorrowedFd<'_>, index: u32) -> io::Result<Self> {
        Self::new(netdevice::index_to_name_inlined(socket, index)?.as_str())
    }
}
