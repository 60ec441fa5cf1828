//! The thread of a place: opens its NIC, watches it, and opens it again.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use culvert_offload::Event;
use culvert_pci::Device;

use super::place::{NicState, Opener, Place};
use crate::nic::Nic;
use crate::sync::lock;
use crate::{Error, Result};

/// Interval of attempts to open an absent NIC, and of looks at one that is there.
const INTERVAL: Duration = Duration::from_millis(100);
/// Interval in which the counters of a running NIC are read: what it counts after the last time is lost with it.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
/// First and longest wait after a bring-up that failed.
const BACKOFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];
/// The thread's state.
pub(super) struct Attempt {
    place: Arc<Place>,
    open: Opener,
    /// The function whose bring-up failed: while it is held, its end tells that the next attempt is worth while.
    held: Option<Arc<dyn Device>>,
    backoff: Duration,
}

impl Attempt {
    pub(super) fn new(place: Arc<Place>, open: Opener) -> Self {
        Attempt { place, open, held: None, backoff: BACKOFF[0] }
    }

    pub(super) fn run(mut self) {
        loop {
            if self.place.is_occupied() {
                if self.watch() {
                    return;
                }
                self.withdraw();
            } else if self.pause() {
                return;
            }
            match self.bring_up() {
                Ok(nic) => {
                    let observed = nic.observed();
                    self.place.put(nic);
                    tracing::info!(nic = self.place.location, "the NIC is back");
                    let epoch = observed.firmware.map_or(0, |f| f.epoch);
                    self.place.reporter.report(Event::FirmwareReady { epoch });
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Opens the function and brings the NIC up.
    pub(super) fn bring_up(&mut self) -> Result<Nic> {
        if let Some(device) = self.held.take() {
            device.close();
        }
        let device: Arc<dyn Device> = Arc::from((self.open)()?);
        self.place.set(NicState::BringingUp, "it is being brought up");
        self.held = Some(device.clone());
        let config = lock(&self.place.config).clone();
        let nic = Nic::bring_up(device, &config, self.place.reporter.clone(), None)?;
        let vfs = nic.enable_vfs(self.place.vfs.min(nic.identity().total_vfs), &[])?;
        lock(&self.place.known).vfs = vfs;
        self.held = None;
        self.backoff = BACKOFF[0];
        Ok(nic)
    }

    /// Notes and reports, once, why there is no NIC.
    pub(super) fn failed(&mut self, error: &Error) {
        let state = if self.held.is_some() { NicState::Failed } else { NicState::Absent };
        let why = error.to_string();
        let is_known = {
            let progress = lock(&self.place.progress);
            progress.state == state && progress.why == why
        };
        if !is_known {
            let again = if self.held.is_some() { self.backoff } else { INTERVAL };
            tracing::error!(nic = self.place.location, "no NIC: {why}; trying again, first in {again:?}");
        }
        self.place.set(state, why);
    }

    /// Waits until the next attempt. `true`: the place is given up.
    fn pause(&mut self) -> bool {
        let Some(device) = self.held.clone() else { return self.place.wait(INTERVAL) };
        let end = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF[1]);
        while Instant::now() < end {
            if self.place.wait(INTERVAL) {
                return true;
            }
            // A function that is gone, and then another one, is no reason to wait.
            if device.config_u16(0).is_err_and(|e| e.is_disconnect()) {
                self.backoff = BACKOFF[0];
                break;
            }
        }
        false
    }

    /// Watches the NIC until it is lost. `true`: the place is given up.
    fn watch(&self) -> bool {
        let mut read = Instant::now();
        loop {
            if self.place.wait(INTERVAL) {
                return true;
            }
            let Ok(nic) = self.place.nic() else { return false };
            if nic.alive() && read.elapsed() >= COUNTERS_INTERVAL {
                read = Instant::now();
                // A NIC that fails here is found silent or lost by its watchdog.
                let _ = self.place.read_all(&nic);
            }
        }
    }

    /// Takes the lost NIC out of the place, so that its function can be opened again.
    fn withdraw(&self) {
        let mut current = self.place.current.write().unwrap_or_else(PoisonError::into_inner);
        let nic = current.take();
        drop(current);
        if let Some(nic) = nic {
            self.place.note(&nic);
            lock(&self.place.config).router_mac = nic.router_mac();
            // Its users may still hold registers and buffers.
            nic.shared.device.close();
        }
        self.place.set(NicState::Lost, "it was lost");
    }
}
