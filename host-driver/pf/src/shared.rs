//! `Shared`: the NIC's state that its owner, its threads and its batches share.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use culvert_packet::MacAddr;
use culvert_pci::Device;

use crate::completion::Completions;
use crate::firmware::{FirmwareInfo, FirmwareStatus};
use crate::identity::Identity;
use crate::registers::Bar0;
use crate::ring::HostToNic;
use crate::sync::lock;
use crate::{Result, mailbox};

/// The arguments of the mailbox request CONFIGURE.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Secret of the flow hash.
    pub(crate) secret: [u64; 9],
    /// The distributed router's MAC.
    pub(crate) router_mac: MacAddr,
}

/// What the watchdog saw when it last read the board's registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed {
    /// The firmware's state.
    pub firmware: Option<FirmwareStatus>,
    /// Link state of each MAC port.
    pub links: [bool; 2],
    /// How long the board took to answer.
    pub delay: Duration,
    /// When that was.
    pub at: Option<Instant>,
}

/// The NIC's shared state.
pub(crate) struct Shared {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) bar: Arc<Bar0>,
    pub(crate) identity: Identity,
    /// Queue 0.
    pub(crate) command: Mutex<HostToNic>,
    pub(crate) completions: Completions,
    pub(crate) settings: Mutex<Settings>,
    pub(crate) info: Mutex<FirmwareInfo>,
    /// Boot epoch of the firmware that takes commands.
    pub(crate) epoch: AtomicU32,
    pub(crate) alive: AtomicBool,
    /// What the watchdog saw last.
    pub(crate) observed: Mutex<Observed>,
    /// Why the NIC takes no commands; empty: it does, or nothing is known.
    pub(crate) trouble: Mutex<String>,
    /// Whether the device has to be opened again.
    pub(crate) lost: AtomicBool,
    /// Tells the NIC's threads to end.
    pub(crate) stop: AtomicBool,
}

impl Shared {
    pub(crate) fn alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn name(&self) -> &str {
        self.device.name()
    }

    /// Marks the firmware dead and fails all outstanding commands.
    pub(crate) fn set_dead(&self) {
        self.alive.store(false, Ordering::Release);
        self.completions.fail_all();
    }

    /// Marks the firmware alive again.
    pub(crate) fn set_alive(&self, info: FirmwareInfo, epoch: u32) {
        *lock(&self.info) = info;
        self.epoch.store(epoch, Ordering::Release);
        lock(&self.trouble).clear();
        self.alive.store(true, Ordering::Release);
    }

    /// Sends CONFIGURE.
    pub(crate) fn configure(&self) -> Result<()> {
        let Settings { secret, router_mac } = *lock(&self.settings);
        mailbox::configure(&self.bar, self.name(), &secret, router_mac)
    }
}
