//! `Nic`: the PF and what is known of it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use culvert_abi::regs::{LINK, QUEUE_COMMAND, QUEUE_STATE, QUEUE_VMQ0};
use culvert_packet::MacAddr;
use culvert_pci::Device;

use crate::completion::Completions;
use crate::event::Events;
use crate::firmware::{self, FirmwareInfo, FirmwareStatus};
use crate::queue::RxQueue;
use crate::registers::Bar0;
use crate::ring::HostToNic;
use crate::sync::lock;
use crate::{Error, Result, mailbox};

/// Entries of a VMQ, as a power of two.
const VMQ_LOG2: u32 = 8;

/// What the NIC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where it is: socket or PCI address.
    pub location: String,
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// Names of both.
    pub name: String,
    /// MAC ports.
    pub uplinks: u8,
    /// VFs that it can have.
    pub total_vfs: u16,
    /// VMQs that it has.
    pub vmqs: u16,
}

/// What the NIC's threads share.
pub(crate) struct Shared {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) bar: Arc<Bar0>,
    pub(crate) identity: Identity,
    pub(crate) command: Mutex<HostToNic>,
    pub(crate) completions: Completions,
    /// The hash's secret and the router's MAC: what CONFIGURE says.
    pub(crate) settings: Mutex<([u64; 9], MacAddr)>,
    pub(crate) info: Mutex<FirmwareInfo>,
    pub(crate) epoch: AtomicU32,
    pub(crate) alive: AtomicBool,
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

    /// The firmware is dead: nobody waits for its answers.
    pub(crate) fn down(&self) {
        self.alive.store(false, Ordering::Release);
        self.completions.lose_all();
    }

    /// The firmware is back.
    pub(crate) fn up(&self, info: FirmwareInfo, epoch: u32) {
        *lock(&self.info) = info;
        self.epoch.store(epoch, Ordering::Release);
        self.alive.store(true, Ordering::Release);
    }

    pub(crate) fn configure(&self) -> Result<()> {
        let (secret, router) = *lock(&self.settings);
        mailbox::configure(&self.bar, self.name(), &secret, router)
    }
}

/// The NIC. See the crate's documentation for its life.
pub struct Nic {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upcalls: Mutex<Option<RxQueue>>,
    pub(crate) events: Mutex<Option<Events>>,
    pub(crate) adopted: bool,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Nic {
    /// Whether firmware was running already, with tables that have been kept.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Lets packets flow, the tables being written. Harmless when they flow already.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn start(&self) -> Result<()> {
        mailbox::start(&self.shared.bar, self.shared.name())
    }

    /// Gives the distributed router another MAC. This empties the flow table.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn set_router_mac(&self, mac: MacAddr) -> Result<()> {
        lock(&self.shared.settings).1 = mac;
        self.shared.configure()
    }

    /// The distributed router's MAC.
    pub fn router_mac(&self) -> MacAddr {
        lock(&self.shared.settings).1
    }

    /// The queue of upcalls. Only the first call returns it.
    pub fn upcalls(&self) -> Option<RxQueue> {
        lock(&self.upcalls).take()
    }

    /// The queue of events. Only the first call returns it.
    pub fn events(&self) -> Option<Events> {
        lock(&self.events).take()
    }

    /// Sets VMQ `n` up and gives it out. Frames come into it as far as filters steer them there.
    ///
    /// # Errors
    /// There is no such queue, or it does not run.
    pub fn vmq(&self, n: u16) -> Result<RxQueue> {
        let count = self.shared.identity.vmqs;
        if n >= count {
            return Err(Error::NoVmq { device: self.shared.name().into(), vmq: n, count });
        }
        RxQueue::new(&self.shared.bar, &*self.shared.device, QUEUE_VMQ0 + usize::from(n), VMQ_LOG2)
    }

    /// What the NIC is.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// What its firmware says of itself.
    pub fn firmware(&self) -> FirmwareInfo {
        *lock(&self.shared.info)
    }

    /// Whether the firmware takes commands.
    pub fn alive(&self) -> bool {
        self.shared.alive()
    }

    /// What the board says of its firmware.
    ///
    /// # Errors
    /// The device is lost.
    pub fn firmware_status(&self) -> Result<FirmwareStatus> {
        firmware::status(&self.shared.bar)
    }

    /// The end of the firmware's log.
    ///
    /// # Errors
    /// The device is lost.
    pub fn firmware_log(&self) -> Result<String> {
        firmware::log_text(&self.shared.bar)
    }

    /// Links of the MAC ports.
    ///
    /// # Errors
    /// The device is lost.
    pub fn links(&self) -> Result<[bool; 2]> {
        let link = self.shared.bar.read(LINK)?;
        Ok([link & 1 != 0, link & 2 != 0])
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the threads; their sleeps are bounded anyway.
        for vector in [culvert_abi::pci::VECTOR_EVENT, culvert_abi::pci::VECTOR_QUEUE0 + 2] {
            if let Ok(interrupt) = self.shared.device.interrupt(vector) {
                let _ = interrupt.signal();
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let _ = self.shared.bar.queue_write(QUEUE_COMMAND, QUEUE_STATE, 0);
    }
}
