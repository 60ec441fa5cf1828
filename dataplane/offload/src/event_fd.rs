//! `EventFd`: wakes a thread that sleeps in poll(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;
use rustix::io::Errno;

use crate::{Error, Result};

/// A non-blocking eventfd. Clones are the same event.
#[derive(Clone, Debug)]
pub struct EventFd(Arc<OwnedFd>);

impl EventFd {
    /// Creates an event that is not signalled.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = rustix::event::eventfd(0, flags)
            .map_err(|e| Error::System { what: "creating an eventfd", source: e.into() })?;
        Ok(Self(Arc::new(fd)))
    }

    /// Signals the event.
    ///
    /// # Errors
    /// The descriptor cannot be written.
    pub fn signal(&self) -> io::Result<()> {
        match rustix::io::write(&*self.0, &1_u64.to_ne_bytes()) {
            // A full counter is signalled already.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Clears the event without waiting. `true`: it was signalled.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub fn try_clear(&self) -> io::Result<bool> {
        match rustix::io::read(&*self.0, &mut [0_u8; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
