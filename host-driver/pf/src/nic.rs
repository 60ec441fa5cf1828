//! `Nic`: the handle of a NIC that takes commands: start, queues, state.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use culvert_abi::regs::{LINK, QUEUE_COMMAND, QUEUE_STATE, QUEUE_VMQ0};
use culvert_packet::MacAddr;

use crate::event::Events;
use crate::firmware::{self, FirmwareInfo, FirmwareStatus};
use crate::identity::Identity;
use crate::queue::RxQueue;
use crate::shared::{Observed, Shared};
use crate::sync::lock;
use crate::{Error, Result, mailbox};

/// Entries of a VMQ, as a power of two.
const VMQ_LOG2: u32 = 8;

/// A Culvert NIC, driven through its PF. The crate's documentation lists its life cycle.
pub struct Nic {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upcalls: Mutex<Option<RxQueue>>,
    pub(crate) events: Mutex<Option<Events>>,
    pub(crate) adopted: bool,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Nic {
    /// Whether the firmware was already running and has kept its tables.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Starts forwarding. Write the tables first. Does nothing if the NIC forwards already.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn start(&self) -> Result<()> {
        mailbox::start(&self.shared.bar, self.shared.name())
    }

    /// Sets the distributed router's MAC. The firmware empties its flow table.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn set_router_mac(&self, mac: MacAddr) -> Result<()> {
        lock(&self.shared.settings).router_mac = mac;
        self.shared.configure()
    }

    /// The distributed router's MAC.
    pub fn router_mac(&self) -> MacAddr {
        lock(&self.shared.settings).router_mac
    }

    /// The queue of upcalls. Only the first call returns it.
    pub fn upcalls(&self) -> Option<RxQueue> {
        lock(&self.upcalls).take()
    }

    /// The queue of events. Only the first call returns it.
    pub fn events(&self) -> Option<Events> {
        lock(&self.events).take()
    }

    /// Sets up VMQ `n`. It receives the frames that VMQ filters steer to it.
    ///
    /// # Errors
    /// The NIC has no VMQ `n`, or the board does not start it.
    pub fn vmq(&self, n: u16) -> Result<RxQueue> {
        let count = self.shared.identity.vmqs;
        if n >= count {
            return Err(Error::NoVmq { device: self.shared.name().into(), vmq: n, count });
        }
        RxQueue::new(&self.shared.bar, &*self.shared.device, QUEUE_VMQ0 + usize::from(n), VMQ_LOG2)
    }

    /// The NIC's identity.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The firmware's version, sizes and configuration.
    pub fn firmware(&self) -> FirmwareInfo {
        *lock(&self.shared.info)
    }

    /// Whether the firmware takes commands.
    pub fn alive(&self) -> bool {
        self.shared.alive()
    }

    /// Whether the device is lost: open it again.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Acquire)
    }

    /// Why the NIC takes no commands; empty: it does, or the reason is not known yet.
    pub fn trouble(&self) -> String {
        lock(&self.shared.trouble).clone()
    }

    /// What the watchdog saw last, four times a second. Makes no access to the device.
    pub fn observed(&self) -> Observed {
        *lock(&self.shared.observed)
    }

    /// The state of the firmware as the board reports it.
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

    /// Link state of each MAC port.
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
        // Wakes the threads. Without it they would end a little later: their sleeps are bounded.
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
