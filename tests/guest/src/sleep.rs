//! Sleeping until a descriptor is readable.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::{Error, FramePort, Result};

/// Sleeps until the port has an event, at most `limit`.
pub(crate) fn sleep(port: &impl FramePort, limit: Duration) -> Result<()> {
    sleep_on(&port.events(), limit)
}

/// Sleeps until one of the descriptors is readable, at most `limit`.
pub(crate) fn sleep_on(fds: &[BorrowedFd<'_>], limit: Duration) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = Timespec::try_from(limit).ok();
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(Error::Io { what: "sleeping".into(), source: e.into() }),
    }
}
