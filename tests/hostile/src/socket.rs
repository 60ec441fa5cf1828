//! Bytes and descriptors on a UNIX socket, with a limit for each wait.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Longest wait for the other side to take or to send bytes.
const LIMIT: Duration = Duration::from_secs(2);
/// Most descriptors that the kernel lets pass with one message.
pub const MAX_FDS: usize = 253;

/// Connects, with a limit for reads and writes.
///
/// # Errors
/// Nobody listens there.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Sends bytes, the descriptors with the first of them.
///
/// # Errors
/// The other side has closed the connection, or takes nothing for two seconds.
pub fn send(mut stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(bytes.get(sent..).unwrap_or_default())
}

/// What is left of a budget of messages after one more.
///
/// # Errors
/// Nothing is left.
pub fn spend(budget: Option<u32>) -> io::Result<Option<u32>> {
    match budget {
        Some(0) => Err(io::Error::other("the budget of messages is spent")),
        some => Ok(some.map(|left| left - 1)),
    }
}

/// Receives exactly so many bytes.
///
/// # Errors
/// The other side has closed the connection, or sends nothing for two seconds.
pub fn receive(mut stream: &UnixStream, into: &mut [u8]) -> io::Result<()> {
    stream.read_exact(into)
}
