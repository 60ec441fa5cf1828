//! Eventfds of a VMM's that the port writes to: a vring's call (the guest's interrupt) and error notification.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// An eventfd to notify the guest, or its VMM, with.
#[derive(Clone)]
pub(super) struct CallFd(Arc<OwnedFd>);

impl CallFd {
    /// Takes an eventfd of the VMM's.
    ///
    /// # Errors
    /// It is not an eventfd.
    pub(super) fn new(fd: OwnedFd) -> Result<Self, &'static str> {
        nonblocking_eventfd(fd).map(|fd| CallFd(Arc::new(fd)))
    }

    /// Writes to the eventfd. A counter that is full was not read yet: nothing is lost.
    pub(super) fn notify(&self) {
        let _written = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Checks that a VMM's file is an eventfd, and makes it non-blocking. Any other file could block its reader or writer.
pub(super) fn nonblocking_eventfd(fd: OwnedFd) -> Result<OwnedFd, &'static str> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if link.ok().as_deref().and_then(Path::to_str) != Some("anon_inode:[eventfd]") {
        return Err("not an eventfd");
    }
    let flags = fcntl_getfl(&fd).map_err(|_| "invalid descriptor")?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(|_| "invalid descriptor")?;
    Ok(fd)
}
