//! The watchdog thread: detects dead firmware within a second, configures restarted firmware, and reports events.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use culvert_abi::pci::VECTOR_EVENT;
use culvert_abi::regs::{
    EVENT_LINK, EVENT_QUEUE, EVENT_VF, EVENTS, FirmwareState, QUEUE_COUNT, QUEUE_FAULT, QUEUE_STATE,
};
use culvert_offload::Event;
use culvert_pci::Interrupt;

use crate::event::Reporter;
use crate::firmware::{self, FirmwareStatus};
use crate::shared::Shared;
use crate::{Result, mailbox};

/// Interval of polls without an interrupt.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Firmware without a heartbeat for this long is dead, whatever the board reports. It counts ten times a second.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(900);

/// The thread's state.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    reporter: Reporter,
    interrupt: Interrupt,
    last: FirmwareStatus,
    /// When the heartbeat last changed.
    last_beat: Instant,
    /// The link register's last value.
    link: u32,
    /// Stopped queues that have been reported, one bit each.
    stopped: u32,
}

impl Watchdog {
    pub(crate) fn new(shared: Arc<Shared>, reporter: Reporter) -> Result<Self> {
        let interrupt = shared.device.interrupt(VECTOR_EVENT)?;
        let last = firmware::status(&shared.bar)?;
        let link = shared.bar.read(culvert_abi::regs::LINK)?;
        Ok(Watchdog { shared, reporter, interrupt, last, last_beat: Instant::now(), link, stopped: 0 })
    }

    /// Runs until the NIC is dropped or lost.
    pub(crate) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let result = self.interrupt.wait(POLL_INTERVAL).map_err(Into::into).and_then(|_| self.poll());
            match result {
                Ok(()) => {}
                Err(crate::Error::Pci(e)) if e.is_disconnect() => {
                    self.shared.set_dead();
                    self.reporter.report(Event::Lost(e.to_string()));
                    return;
                }
                // A slow answer, or firmware that died again during its configuration: the next poll finds out.
                Err(_) => {}
            }
        }
    }

    /// Reads all event sources once.
    fn poll(&mut self) -> Result<()> {
        if self.shared.stop.load(Ordering::Acquire) {
            return Ok(());
        }
        let events = self.shared.bar.read(EVENTS)?;
        self.firmware()?;
        let link = self.shared.bar.read(culvert_abi::regs::LINK)?;
        if events & EVENT_LINK != 0 || link != self.link {
            self.link = link;
            self.reporter.report(Event::Link([link & 1 != 0, link & 2 != 0]));
        }
        if events & EVENT_VF != 0 {
            self.reporter.report(Event::Vf);
        }
        if events & EVENT_QUEUE != 0 {
            self.queues()?;
        }
        Ok(())
    }

    /// Reports queues that have stopped since the last poll.
    fn queues(&mut self) -> Result<()> {
        for queue in 0..QUEUE_COUNT {
            let fault = self.shared.bar.queue_read(queue, QUEUE_STATE)? == QUEUE_FAULT;
            let reported = self.stopped & 1 << queue != 0;
            if fault && !reported {
                self.reporter.report(Event::QueueStopped { queue });
            }
            self.stopped = self.stopped & !(1 << queue) | u32::from(fault) << queue;
        }
        Ok(())
    }

    /// Reports the firmware's death, and configures it after its restart.
    fn firmware(&mut self) -> Result<()> {
        let now = firmware::status(&self.shared.bar)?;
        if now.heartbeat != self.last.heartbeat || now.epoch != self.last.epoch {
            self.last_beat = Instant::now();
        }
        let previous = std::mem::replace(&mut self.last, now);
        let silent = self.last_beat.elapsed() > HEARTBEAT_TIMEOUT;
        let running = now.state == FirmwareState::Ready && !silent;
        if self.shared.alive() && (!running || now.epoch != self.shared.epoch()) {
            self.shared.set_dead();
            let panic = firmware::panic_text(&self.shared.bar)?;
            let log = firmware::log_text(&self.shared.bar)?;
            self.reporter.report(Event::FirmwareDied { epoch: previous.epoch, panic, log });
        }
        if !self.shared.alive() && running {
            let shared = &self.shared;
            let info = mailbox::hello(&shared.bar, shared.device.name())?;
            shared.set_alive(info, now.epoch);
            // Firmware that missed heartbeats still has its tables, and a board may have restored those of restarted
            // firmware. CONFIGURE would clear them.
            let configured = shared
                .has_vports()
                .and_then(|has_vports| if has_vports { Ok(()) } else { shared.configure() });
            if let Err(e) = configured {
                shared.set_dead();
                return Err(e);
            }
            self.reporter.report(Event::FirmwareReady { epoch: now.epoch });
        }
        Ok(())
    }
}
