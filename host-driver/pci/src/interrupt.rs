//! `Interrupt`: an MSI-X vector as an eventfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::{Error, Result};

/// An interrupt of a device: an eventfd that the device signals. Clones are the same event.
///
/// An interrupt between two waits is not lost: the next wait returns at once.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<OwnedFd>);

impl Interrupt {
    /// Creates an event that is not signalled.
    ///
    /// # Errors
    /// [`Error::System`] if the process has no file descriptor left.
    pub fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = rustix::event::eventfd(0, flags).map_err(|e| Error::system("eventfd", e))?;
        Ok(Self(Arc::new(fd)))
    }

    /// Waits until the device signals, at most `timeout`, and clears the event. False: the time is over.
    ///
    /// # Errors
    /// [`Error::System`] if the wait itself fails.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        if self.try_clear()? {
            return Ok(true);
        }
        let limit = Timespec::try_from(timeout).ok();
        let mut fds = [PollFd::new(&*self.0, PollFlags::IN)];
        match rustix::event::poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => self.try_clear(),
            Err(e) => Err(Error::system("waiting for an interrupt", e)),
        }
    }

    /// Clears the interrupt without waiting. True: it was signalled.
    ///
    /// # Errors
    /// [`Error::System`] if the event cannot be read.
    pub fn try_clear(&self) -> Result<bool> {
        match rustix::io::read(&*self.0, &mut [0_u8; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(Error::system("reading an interrupt", e)),
        }
    }

    /// Signals the event as the device would, which wakes a waiting thread.
    ///
    /// # Errors
    /// [`Error::System`] if the event cannot be written.
    pub fn signal(&self) -> Result<()> {
        match rustix::io::write(&*self.0, &1_u64.to_ne_bytes()) {
            // A full counter is signalled already.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(e) => Err(Error::system("signalling an interrupt", e)),
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
