//! Eventfds of a VMM's that the port writes to: a vring's call (the guest's interrupt) and error notification.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use culvert_virtio::{EventSignal, SignalError, check_eventfd, signal_all};

/// An eventfd to notify the guest, or its VMM, with.
#[derive(Clone)]
pub(super) struct CallFd(Arc<EventSignal>);

impl CallFd {
    /// Takes an eventfd of the VMM's.
    ///
    /// # Errors
    /// It is not an eventfd.
    pub(super) fn new(fd: OwnedFd) -> Result<Self, &'static str> {
        EventSignal::new(fd).map(|signal| CallFd(Arc::new(signal))).map_err(|error| reason(&error))
    }

    /// Notifies. A counter that is full was not read yet: nothing is lost.
    pub(super) fn notify(&self) {
        self.0.signal();
    }

    /// Notifies all of them at once.
    pub(super) fn notify_all<'c>(calls: impl IntoIterator<Item = &'c CallFd>) {
        signal_all(calls.into_iter().map(|call| &*call.0));
    }
}

/// Takes an eventfd that a guest kicks. It is polled and never read: its VMM could make a read wait.
pub(super) fn kick_fd(fd: OwnedFd) -> Result<OwnedFd, &'static str> {
    check_eventfd(&fd).map_err(|error| reason(&error)).map(|()| fd)
}

fn reason(error: &SignalError) -> &'static str {
    match error {
        SignalError::NotEventFd => "not an eventfd",
        SignalError::Unsupported(_) => "the kernel offers no asynchronous I/O (CONFIG_AIO)",
        SignalError::LimitReached => "the limit of asynchronous I/O is used up (sysctl fs.aio-max-nr)",
        SignalError::System(_) => "the eventfd cannot be checked",
    }
}
