//! The watchdog: notices a dead firmware within a second, whatever it died of, and sets its successor up.

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
use crate::nic::Shared;
use crate::{Result, mailbox};

const TICK: Duration = Duration::from_millis(250);
/// The heartbeat counts ten times a second; if it stands as long as this, the firmware is dead, whatever the board says.
const SILENCE: Duration = Duration::from_millis(900);

pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    reporter: Reporter,
    interrupt: Interrupt,
    last: FirmwareStatus,
    beat: Instant,
    link: u32,
    stopped: u32,
}

impl Watchdog {
    pub(crate) fn new(shared: Arc<Shared>, reporter: Reporter) -> Result<Self> {
        let interrupt = shared.device.interrupt(VECTOR_EVENT)?;
        let last = firmware::status(&shared.bar)?;
        let link = shared.bar.read(culvert_abi::regs::LINK)?;
        Ok(Watchdog { shared, reporter, interrupt, last, beat: Instant::now(), link, stopped: 0 })
    }

    /// Watches until the NIC is dropped or lost.
    pub(crate) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let result = self.interrupt.wait(TICK).map_err(Into::into).and_then(|_| self.look());
            match result {
                Ok(()) => {}
                Err(crate::Error::Pci(e)) if e.is_disconnect() => {
                    self.shared.down();
                    self.reporter.report(Event::Lost(e.to_string()));
                    return;
                }
                // A slow answer, or firmware that died again while it was set up: the next look tells.
                Err(_) => {}
            }
        }
    }

    fn look(&mut self) -> Result<()> {
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

    fn queues(&mut self) -> Result<()> {
        for queue in 0..QUEUE_COUNT {
            let fault = self.shared.bar.queue_read(queue, QUEUE_STATE)? == QUEUE_FAULT;
            let known = self.stopped & 1 << queue != 0;
            if fault && !known {
                self.reporter.report(Event::QueueStopped { queue });
            }
            self.stopped = self.stopped & !(1 << queue) | u32::from(fault) << queue;
        }
        Ok(())
    }

    fn firmware(&mut self) -> Result<()> {
        let now = firmware::status(&self.shared.bar)?;
        if now.heartbeat != self.last.heartbeat || now.epoch != self.last.epoch {
            self.beat = Instant::now();
        }
        let was = std::mem::replace(&mut self.last, now);
        let silent = self.beat.elapsed() > SILENCE;
        let running = now.state == FirmwareState::Ready && !silent;
        if self.shared.alive() && (!running || now.epoch != self.shared.epoch()) {
            self.shared.down();
            let panic = firmware::panic_text(&self.shared.bar)?;
            let log = firmware::log_text(&self.shared.bar)?;
            self.reporter.report(Event::FirmwareDied { epoch: was.epoch, panic, log });
        }
        if !self.shared.alive() && running {
            let shared = &self.shared;
            let info = mailbox::hello(&shared.bar, shared.device.name())?;
            shared.up(info, now.epoch);
            // One that was only silent for a while still has its tables, and a board may have told a new one what the
            // former knew.
            let knows = shared.has_vports().and_then(|knows| if knows { Ok(()) } else { shared.configure() });
            if let Err(e) = knows {
                shared.down();
                return Err(e);
            }
            self.reporter.report(Event::FirmwareReady { epoch: now.epoch });
        }
        Ok(())
    }
}
