//! Doorbells: the server side of QEMU's inter-VM shared memory device, with the board as peer 0 and the SoC as peer 1.
//! An eventfd each way; the shared memory of the device itself is not used.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::SocError;

/// Both eventfds.
pub(super) struct Doorbells {
    /// The firmware signals this one.
    pub(super) to_board: OwnedFd,
    /// The board signals this one.
    to_firmware: OwnedFd,
    memory: OwnedFd,
}

impl Doorbells {
    pub(super) fn new() -> Result<Self, SocError> {
        let failed = |what| move |e: rustix::io::Errno| SocError::System { what, source: e.into() };
        let eventfd = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let memory =
            rustix::fs::memfd_create("culvert-doorbells", MemfdFlags::CLOEXEC).map_err(failed("memfd"))?;
        rustix::fs::ftruncate(&memory, 4096).map_err(failed("the doorbells' memory"))?;
        Ok(Doorbells {
            to_board: eventfd().map_err(failed("eventfd"))?,
            to_firmware: eventfd().map_err(failed("eventfd"))?,
            memory,
        })
    }

    /// Introduces the SoC's device: protocol version, its number, the memory, then each peer with its eventfd.
    pub(super) fn introduce(&self, stream: &UnixStream) -> io::Result<()> {
        send(stream, 0, None)?;
        send(stream, 1, None)?;
        send(stream, -1, Some(self.memory.as_fd()))?;
        send(stream, 0, Some(self.to_board.as_fd()))?;
        send(stream, 1, Some(self.to_firmware.as_fd()))
    }

    /// Wakes the firmware.
    pub(super) fn notify_firmware(&self) {
        // It fails only when the counter is full, and then the eventfd is readable.
        let _full = rustix::io::write(&self.to_firmware, &1u64.to_ne_bytes());
    }

    /// Clears the firmware's notifications.
    pub(super) fn clear(&self) {
        let _empty = rustix::io::read(&self.to_board, &mut [0; 8]);
    }
}

fn send(stream: &UnixStream, value: i64, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let bytes = value.to_le_bytes();
    let sent = rustix::net::sendmsg(stream, &[io::IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
