//! The watchdog thread: detects dead firmware within a second, configures restarted firmware, and reports events.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use culvert_abi::command::Op;
use culvert_abi::pci::VECTOR_EVENT;
use culvert_abi::regs::{
    EVENT_LINK, EVENT_QUEUE, EVENT_VF, EVENTS, FirmwareState, MAGIC, MAGIC_VALUE, QUEUE_COUNT, QUEUE_FAULT,
    QUEUE_STATE,
};
use culvert_offload::Event;
use culvert_pci::Interrupt;

use crate::event::Reporter;
use crate::firmware::{self, FirmwareStatus};
use crate::shared::{Observed, Shared};
use crate::sync::lock;
use crate::{Result, mailbox};

/// Interval of polls without an interrupt.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Firmware without a heartbeat for this long is dead, whatever the board reports. It counts ten times a second.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(900);
/// What the time between two polls adds to the firmware's silence at most: a driver that was stopped itself, or is short of
/// processor time, has not looked.
const MAX_SILENCE: Duration = Duration::from_millis(300);
/// How often firmware may fail to be configured before the NIC counts as lost.
const MAX_UNCONFIGURED: u32 = 3;

/// The thread's state.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    reporter: Reporter,
    interrupt: Interrupt,
    last: FirmwareStatus,
    /// When the heartbeat was last read, and for how long it has not changed.
    last_look: Instant,
    silence: Duration,
    /// How often running firmware could not be configured.
    unconfigured: u32,
    /// The link register's last value; `None`: it is reported at the first poll.
    link: Option<u32>,
    /// Stopped queues that have been reported, one bit each.
    stopped: u32,
}

impl Watchdog {
    /// `reports_links`: whether the first poll reports the links as they are.
    pub(crate) fn new(shared: Arc<Shared>, reporter: Reporter, reports_links: bool) -> Result<Self> {
        let interrupt = shared.device.interrupt(VECTOR_EVENT)?;
        let last = firmware::status(&shared.bar)?;
        let link = shared.bar.read(culvert_abi::regs::LINK)?;
        let observed = Observed {
            firmware: Some(last),
            links: links(link),
            delay: Duration::ZERO,
            at: Some(Instant::now()),
        };
        *lock(&shared.observed) = observed;
        let link = (!reports_links).then_some(link);
        let (last_look, silence, unconfigured, stopped) = (Instant::now(), Duration::ZERO, 0, 0);
        Ok(Watchdog { shared, reporter, interrupt, last, last_look, silence, unconfigured, link, stopped })
    }

    /// Runs until the NIC is dropped or lost.
    pub(crate) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let result = self.interrupt.wait(POLL_INTERVAL).map_err(Into::into).and_then(|_| self.poll());
            match result {
                Ok(()) => {}
                Err(e) if e.is_lost() => return self.lost(&e.to_string()),
                Err(e) => self.failed(&e),
            }
            if self.unconfigured >= MAX_UNCONFIGURED {
                let limit = MAX_UNCONFIGURED;
                return self
                    .lost(&format!("its firmware beats, but {limit} attempts to configure it have failed"));
            }
        }
    }

    fn lost(&self, why: &str) {
        self.shared.set_dead();
        *lock(&self.shared.trouble) = why.into();
        self.reporter.report(Event::Lost(why.into()));
        self.shared.lost.store(true, Ordering::Release);
    }

    /// A poll has failed. A board that does not answer gets no commands until it does; other faults are over at the next
    /// poll, or come again.
    fn failed(&mut self, error: &crate::Error) {
        if error.is_silence() && self.shared.alive() {
            self.shared.set_dead();
            *lock(&self.shared.trouble) = error.to_string();
            self.reporter.report(Event::Silent(error.to_string()));
        }
    }

    /// Reads all event sources once.
    fn poll(&mut self) -> Result<()> {
        if self.shared.stop.load(Ordering::Acquire) {
            return Ok(());
        }
        let begun = Instant::now();
        let events = self.shared.bar.read(EVENTS)?;
        let link = self.shared.bar.read(culvert_abi::regs::LINK)?;
        let now = firmware::status(&self.shared.bar)?;
        if now.epoch == u32::MAX && self.shared.bar.read(MAGIC)? != MAGIC_VALUE {
            return Err(crate::Error::Removed { device: self.shared.name().into() });
        }
        *lock(&self.shared.observed) = Observed {
            firmware: Some(now),
            links: links(link),
            delay: begun.elapsed(),
            at: Some(Instant::now()),
        };
        self.firmware(now)?;
        if events & EVENT_LINK != 0 || Some(link) != self.link {
            self.link = Some(link);
            self.reporter.report(Event::Link(links(link)));
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
    fn firmware(&mut self, now: FirmwareStatus) -> Result<()> {
        let since = std::mem::replace(&mut self.last_look, Instant::now()).elapsed();
        let previous = std::mem::replace(&mut self.last, now);
        if now.heartbeat != previous.heartbeat || now.epoch != previous.epoch {
            self.silence = Duration::ZERO;
        } else {
            self.silence += since.min(MAX_SILENCE);
        }
        let running = now.state == FirmwareState::Ready && self.silence <= HEARTBEAT_TIMEOUT;
        if self.shared.alive() && (!running || now.epoch != self.shared.epoch()) {
            self.shared.set_dead();
            let panic = firmware::panic_text(&self.shared.bar)?;
            let log = firmware::log_text(&self.shared.bar)?;
            self.reporter.report(Event::FirmwareDied { epoch: previous.epoch, panic, log });
        }
        if !self.shared.alive() && now.state == FirmwareState::Dead {
            // The board replaces the last words by the reason why it cannot start the firmware again.
            let words = firmware::panic_text(&self.shared.bar)?;
            *lock(&self.shared.trouble) = format!("the firmware is dead: {words}");
        }
        if !self.shared.alive() && running {
            let shared = &self.shared;
            let is_same = now.epoch == shared.epoch();
            let taken = mailbox::hello(&shared.bar, shared.device.name()).and_then(|info| {
                shared.set_alive(info, now.epoch);
                shared.take_back(is_same).inspect_err(|_| shared.set_dead())
            });
            if let Err(e) = taken {
                self.unconfigured += u32::from(e.is_unanswered());
                *lock(&shared.trouble) = e.to_string();
                tracing::warn!(error = %e, "the firmware beats, but cannot be configured");
                return Err(e);
            }
            self.unconfigured = 0;
            self.reporter.report(Event::FirmwareReady { epoch: now.epoch });
        }
        Ok(())
    }
}

impl Shared {
    /// Configures firmware that lives again, if it needs that. Firmware that missed heartbeats, or whose board was silent,
    /// still has its tables, and a board may have restored those of restarted firmware. CONFIGURE would clear them.
    fn take_back(&self, is_same: bool) -> Result<()> {
        if !self.has_vports()? {
            return self.configure();
        }
        if is_same {
            // It waits for packets whose verdicts were lost meanwhile.
            self.command(Op::HostRestart, 0, 0, &[])?;
        }
        Ok(())
    }
}

fn links(register: u32) -> [bool; 2] {
    [register & 1 != 0, register & 2 != 0]
}
