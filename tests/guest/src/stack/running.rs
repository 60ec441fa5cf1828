//! Commands that the stack executes, as the caller sees them.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::{Error, Event, ProbeReport, Result, Transfer};

/// A submitted command, with a channel for its events.
pub struct Running {
    pub(super) events: Receiver<Event>,
    pub(super) fate: Fate,
}

/// The error that ended the guest's thread, after its end.
pub(super) type Fate = Arc<OnceLock<String>>;

/// The error of a request to a guest that has ended.
pub(super) fn stopped(fate: &Fate) -> Error {
    Error::Stopped(fate.get().map_or("it was told to quit", String::as_str).into())
}

impl Running {
    /// Waits for the next event.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::Stopped`] if the guest's thread has ended.
    pub fn next(&self, limit: Duration) -> Result<Event> {
        self.events.recv_timeout(limit).map_err(|e| match e {
            RecvTimeoutError::Timeout => Error::Timeout { what: "the command", limit },
            RecvTimeoutError::Disconnected => stopped(&self.fate),
        })
    }

    /// Waits for the last event, and skips those before it.
    ///
    /// # Errors
    /// As [`Running::next`], and [`Error::Failed`] if the command failed.
    pub fn finish(&self, limit: Duration) -> Result<Event> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now()))? {
                Event::Error { message } => return Err(Error::Failed(message)),
                event if event.is_last() => return Ok(event),
                _ => {}
            }
        }
    }

    /// Waits for the transfer's result.
    ///
    /// # Errors
    /// As [`Running::finish`].
    pub fn transfer(&self, limit: Duration) -> Result<Transfer> {
        match self.finish(limit)? {
            Event::Transfer(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for the probe's result.
    ///
    /// # Errors
    /// As [`Running::finish`].
    pub fn probe(&self, limit: Duration) -> Result<ProbeReport> {
        match self.finish(limit)? {
            Event::Probe(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }
}

/// The error of an event that does not answer the command.
pub(super) fn unexpected(event: &Event) -> Error {
    Error::Failed(format!("unexpected answer {event:?}"))
}
