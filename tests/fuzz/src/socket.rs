//! Messages with file descriptors on a UNIX socket, and the descriptors that a hostile peer sends.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Sends a message whole. `false`: the other side is gone, or takes nothing more.
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        match sendmsg(stream, &[IoSlice::new(&bytes[at..])], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => at += sent,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return false,
        }
        // The descriptors travel with the first byte.
        control.clear();
    }
    true
}

/// Descriptors of a kind: none, an eventfd, the guest's memory, something that is neither, several.
pub(crate) fn descriptors(kind: u8, memory: &File) -> Vec<OwnedFd> {
    let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let memory = || OwnedFd::from(memory.try_clone().expect("a descriptor"));
    match kind % 6 {
        0 => Vec::new(),
        1 => vec![event()],
        2 => vec![memory()],
        3 => vec![File::open("/dev/null").expect("it is there").into()],
        4 => vec![memory(), memory()],
        _ => vec![event(), event(), event(), event()],
    }
}
