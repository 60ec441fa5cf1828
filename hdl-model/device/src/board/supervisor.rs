//! Watches the firmware: a dead one is noticed within a second and started again, by the board alone.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use culvert_abi::image::ImageError;
use culvert_abi::pci::VECTOR_EVENT;
use culvert_abi::regs::{EVENT_FIRMWARE, FirmwareState, MBOX_WORDS};
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM, ctrl};
use culvert_packet::Reason;

use super::engine::Engine;
use super::registers::Request;
use super::shadow::{Command, Shadow};
use crate::soc::SocError;

/// Silence after which a firmware counts as dead. It beats twenty times a second; a loaded machine may delay it.
const SILENCE: Duration = Duration::from_millis(900);
/// Time that a start may take before it is tried again.
const BOOT: Duration = Duration::from_secs(15);

/// What is known of the firmware.
pub(super) struct Supervisor {
    image: Option<Vec<u8>>,
    heartbeat: u32,
    last_beat: Instant,
    /// What a new firmware is to be told.
    pub(super) shadow: Shadow,
    restore: Restore,
}

/// How far a restarted firmware is told what the one before knew.
enum Restore {
    /// Nothing to be told.
    Done,
    /// CONFIGURE is in the mailbox.
    Configuring,
    /// Commands that are left.
    Replaying(VecDeque<Command>),
}

impl Supervisor {
    pub(super) fn new() -> Self {
        let shadow = Shadow::default();
        Supervisor { image: None, heartbeat: 0, last_beat: Instant::now(), shadow, restore: Restore::Done }
    }
}

impl Engine {
    fn set_firmware_state(&mut self, state: FirmwareState) {
        self.state.firmware_state.store(state as u32, Release);
        self.state.event(EVENT_FIRMWARE);
        self.port.interrupt(VECTOR_EVENT);
    }

    /// Carries out a request of the driver.
    pub(super) fn carry_out(&mut self, request: Request) {
        match request {
            Request::Start { image, len } => {
                if len > culvert_abi::image::MAX_LEN {
                    return self.refuse(ImageError::Length as u32);
                }
                let mut bytes = vec![0; len as usize];
                let read = self.port.memory().view().read(image, &mut bytes);
                match read {
                    Ok(()) => {
                        self.serving = false;
                        self.supervisor.shadow = Shadow::default();
                        self.supervisor.image = Some(bytes);
                        self.start_firmware();
                    }
                    Err(_) => self.refuse(ImageError::Address as u32),
                }
            }
            Request::Stop | Request::Reset => {
                self.serving = false;
                self.supervisor.image = None;
                self.soc.stop();
                self.take_everything_back(Reason::QueueReset);
                self.set_firmware_state(FirmwareState::Off);
            }
        }
    }

    fn refuse(&mut self, error: u32) {
        self.state.error.store(error, Release);
        self.set_firmware_state(FirmwareState::Refused);
    }

    fn start_firmware(&mut self) {
        let Some(image) = self.supervisor.image.clone() else { return };
        self.soc.stop();
        self.take_everything_back(Reason::FirmwareRestart);
        if self.mail_pending {
            // The firmware that was asked cannot answer any more.
            self.mail_pending = false;
            let mut reply = [0; MBOX_WORDS];
            reply[0] = Reason::FirmwareRestart as u32;
            self.state.answer_mail(reply);
        }
        self.supervisor.last_beat = Instant::now();
        self.supervisor.restore = Restore::Done;
        match self.soc.start(&image) {
            Ok(()) => {
                self.state.epoch.store(self.soc.epoch(), Release);
                self.set_firmware_state(FirmwareState::Booting);
            }
            Err(SocError::Image(error)) => {
                self.supervisor.image = None;
                self.refuse(error as u32);
            }
            Err(error) => {
                tracing::error!("the firmware does not start: {error}");
                self.set_firmware_state(FirmwareState::Dead);
            }
        }
    }

    /// Packets that the firmware has are lost and counted; descriptors that waited for it too.
    fn take_everything_back(&mut self, reason: Reason) {
        for port in self.soc.take_back() {
            let port = BoardPort::from_bits(port);
            // Commands of the host have no port: the host sees the new epoch.
            if port != BoardPort::None {
                self.state.counters.drop(port, reason, 1);
            }
        }
        for descriptor in std::mem::take(&mut self.delayed) {
            self.soc.owners().free(descriptor.buffer);
        }
        self.shares.clear();
    }

    /// Called ten times a second.
    pub(super) fn watch_firmware(&mut self) {
        if self.supervisor.image.is_none() {
            return;
        }
        let beat = self.soc.heartbeat();
        if beat != self.supervisor.heartbeat {
            self.supervisor.heartbeat = beat;
            self.supervisor.last_beat = Instant::now();
        }
        self.state.heartbeat.store(beat, Release);
        let (head, ring) = self.soc.log();
        self.state.log_head.store(head, Release);
        self.state.set_texts(ring, None);
        let booting = self.state.firmware_state.load(Acquire) == FirmwareState::Booting as u32;
        if booting && self.soc.is_ready() && matches!(self.supervisor.restore, Restore::Done) {
            match self.supervisor.shadow.configure().filter(|_| self.serving) {
                Some(request) => {
                    self.soc.send_mail(&request);
                    self.supervisor.restore = Restore::Configuring;
                }
                None => self.set_firmware_state(FirmwareState::Ready),
            }
            return;
        }
        let limit = if booting { BOOT } else { SILENCE };
        let silent = self.supervisor.last_beat.elapsed() > limit;
        let stopped = !booting && self.soc.word(ctrl::FW_READY).load(Acquire) == 0;
        if silent || stopped || !self.soc.is_running() {
            let text = self.soc.panic_text();
            tracing::error!(
                epoch = self.soc.epoch(),
                panic = text,
                "the firmware is dead; starting it again"
            );
            self.state.set_texts(self.soc.log().1, Some(text.into_bytes()));
            self.set_firmware_state(FirmwareState::Dead);
            self.start_firmware();
        }
    }

    /// Whether packets may flow: the driver has said so, and the firmware knows what it has to.
    pub(super) fn may_serve(&self) -> bool {
        self.serving && matches!(self.supervisor.restore, Restore::Done) && self.soc.is_ready()
    }

    /// Whether a restarted firmware is being told what the one before knew.
    pub(super) fn is_restoring(&self) -> bool {
        !matches!(self.supervisor.restore, Restore::Done)
    }

    /// Goes on telling a restarted firmware what the one before knew. Returns whether there was anything to do.
    pub(super) fn restore(&mut self) -> bool {
        match &mut self.supervisor.restore {
            Restore::Done => false,
            Restore::Configuring => {
                let answered = self.soc.mail_reply().is_some();
                if answered {
                    self.supervisor.restore = Restore::Replaying(self.supervisor.shadow.replay());
                }
                answered
            }
            Restore::Replaying(left) => {
                let Some(command) = left.front() else {
                    self.supervisor.restore = Restore::Done;
                    self.set_firmware_state(FirmwareState::Ready);
                    return true;
                };
                if self.soc.room() == 0 {
                    return false;
                }
                let Some(buffer) = self.soc.owners().take() else { return false };
                let (start, len) = (HEADROOM as usize, command.payload.len());
                if let Some(memory) = self.soc.buffer(buffer) {
                    memory[start..start + len].copy_from_slice(&command.payload);
                }
                let (op, arg0) = (command.op as u8, command.arg0);
                let now = self.started.elapsed().as_millis() as u32;
                let (offset, len) = (HEADROOM as u16, len as u16);
                left.pop_front();
                let descriptor = Descriptor { buffer, offset, len, op, arg0, now, ..Descriptor::default() };
                self.push(descriptor);
                true
            }
        }
    }
}
