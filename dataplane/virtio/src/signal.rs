//! Signals an eventfd of a client without a call that the client could make block.
//!
//! A client shares the eventfd's file: it may clear `O_NONBLOCK` and fill the counter at any time, and then a `write` waits
//! until the counter is read, also after the client's death. To look first with `poll` leaves a gap between look and write.
//!
//! The kernel signals an eventfd itself when asynchronous I/O completes, which never waits and keeps a full counter full:
//! [`EventSignal`] submits an empty read of `/dev/null` that names the eventfd (`IOCB_FLAG_RESFD`, io_submit(2)). The read is
//! complete when the call returns. It costs about twice what a `write` costs alone, and several eventfds share one call.
//!
//! Each thread that signals gets an AIO context, of [`DEPTH`] of the machine's `fs.aio-max-nr` (65,536 by default), so that
//! threads do not wait for each other; one context serves any number of ports. A thread for which none is left uses a context
//! that all threads share.

mod context;
mod error;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use context::{Context, MAX_BATCH};
pub use error::SignalError;

/// Operations that each context reserves of the machine's limit. The kernel rounds the queue itself up to whole pages.
const DEPTH: u32 = 32;

/// The context of threads that cannot have their own.
static SHARED: OnceLock<Context> = OnceLock::new();

thread_local! {
    static OWN: Option<Context> = Context::new(DEPTH).ok();
}

/// An eventfd of a client, which is told of something by it: an interrupt of a guest, or a fault.
#[derive(Debug)]
pub struct EventSignal(OwnedFd);

impl EventSignal {
    /// Checks that this machine can signal eventfds without waiting. Call it where an error can still be told to a user.
    ///
    /// # Errors
    /// The kernel has no asynchronous I/O, or its limit is used up.
    pub fn check_support() -> Result<(), SignalError> {
        shared().map(drop)
    }

    /// Takes a client's file.
    ///
    /// # Errors
    /// [`SignalError::NotEventFd`], or what [`check_support`](Self::check_support) says.
    pub fn new(fd: OwnedFd) -> Result<Self, SignalError> {
        check_eventfd(&fd)?;
        Ok(EventSignal(fd))
    }

    /// Adds 1 to the eventfd's counter. A counter that is full stays full: its reader has a signal waiting.
    pub fn signal(&self) {
        signal_all([self]);
    }
}

impl AsFd for EventSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Signals all of them, with one call for as many as a burst usually has.
pub fn signal_all<'e>(events: impl IntoIterator<Item = &'e EventSignal>) {
    let mut batch = [0; MAX_BATCH];
    let mut len = 0;
    for event in events {
        batch[len] = event.0.as_raw_fd();
        len += 1;
        if len == MAX_BATCH {
            submit(&batch);
            len = 0;
        }
    }
    if len > 0 {
        submit(&batch[..len]);
    }
}

/// Checks that a client's file is an eventfd, as the kernel sees it. No other file's owner is asked anything.
///
/// # Errors
/// [`SignalError::NotEventFd`], or what [`EventSignal::check_support`] says.
pub fn check_eventfd(fd: impl AsFd) -> Result<(), SignalError> {
    shared()?.check_eventfd(fd.as_fd().as_raw_fd())
}

fn shared() -> Result<&'static Context, SignalError> {
    if let Some(context) = SHARED.get() {
        return Ok(context);
    }
    let context = Context::new(DEPTH)?;
    Ok(SHARED.get_or_init(|| context))
}

fn submit(eventfds: &[i32]) {
    // A thread that is ending has no own context any more.
    let own = OWN.try_with(|own| own.as_ref().map(|context| context.signal(eventfds)));
    if !matches!(own, Ok(Some(())))
        && let Ok(context) = shared()
    {
        context.signal(eventfds);
    }
}
