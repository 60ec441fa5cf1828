//! A thread that drops what is slow to drop: to unmap a guest's memory takes long, and packets must not wait for it.

use std::io;
use std::sync::mpsc::{self, SendError, Sender};
use std::sync::{Mutex, PoisonError};

/// Something to be dropped.
type Waste = Box<dyn Send>;

/// The way to the thread, which lives as long as the process.
static REAPER: Mutex<Option<Sender<Waste>>> = Mutex::new(None);

/// A handle to the thread, for a thread that packets wait for.
pub(super) struct Reaper(Sender<Waste>);

impl Reaper {
    /// Starts the thread, if it does not run yet.
    pub(super) fn start() -> io::Result<Self> {
        let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*reaper {
            return Ok(Reaper(sender.clone()));
        }
        let (sender, waste) = mpsc::channel();
        let run = move || waste.into_iter().for_each(drop);
        std::thread::Builder::new().name("vhost-reaper".into()).spawn(run)?;
        *reaper = Some(sender.clone());
        Ok(Reaper(sender))
    }

    /// Has a value dropped. Only mappings and eventfds: whatever could wait for a client stays with that client's thread.
    pub(super) fn discard(&self, value: impl Send + 'static) {
        // The thread ends with the process only.
        if let Err(SendError(value)) = self.0.send(Box::new(value)) {
            std::mem::forget(value);
        }
    }
}
