//! Watches the firmware: notices a dead one within a second, starts it again and replays the host's configuration to it,
//! without the host.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use culvert_abi::image::ImageError;
use culvert_abi::pci::{VECTOR_EVENT, VECTOR_MAILBOX};
use culvert_abi::regs::{EVENT_FIRMWARE, FirmwareState, MBOX_WORDS};
use culvert_abi::soc::ctrl;
use culvert_packet::Reason;

use super::clock::Heartbeat;
use super::firmware_link::FirmwareLink;
use super::registers::{Request, State};
use super::shadow::{Command, Shadow};
use crate::function::PfPort;
use crate::soc::{Soc, SocError};

/// Silence after which a running firmware counts as dead. It beats twenty times a second; a loaded computer may delay it.
const SILENCE: Duration = Duration::from_millis(900);
/// Silence after which a firmware that starts is started again.
const BOOT: Duration = Duration::from_secs(15);

/// The firmware's state, its mailbox, and the shadow of its configuration.
pub(super) struct Supervisor {
    registers: Arc<State>,
    port: Arc<PfPort>,
    firmware: Firmware,
    mailbox: Mailbox,
    shadow: Shadow,
}

/// The firmware as the board knows it.
enum Firmware {
    /// There is no image: the driver has loaded none or stopped it, or the board has refused it.
    Off,
    /// An image that is kept running.
    On { image: Vec<u8>, heartbeat: Heartbeat, phase: Phase },
}

/// How far an image is.
enum Phase {
    /// Started; does not serve its rings yet.
    Booting,
    /// The host's CONFIGURE is in the mailbox again.
    Configuring,
    /// The host's commands are sent again: those that are left.
    Replaying(VecDeque<Command>),
    /// Serves its rings and is configured.
    Running,
    /// The SoC did not start it: the next watch tries again.
    Dead,
}

/// The mailbox between host and firmware.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mailbox {
    Idle,
    /// A request of the host is at the firmware.
    Pending,
}

impl Supervisor {
    pub(super) fn new(registers: Arc<State>, port: Arc<PfPort>) -> Self {
        let (firmware, mailbox, shadow) = (Firmware::Off, Mailbox::Idle, Shadow::default());
        Supervisor { registers, port, firmware, mailbox, shadow }
    }

    /// The shadow of the firmware's configuration.
    pub(super) fn shadow(&mut self) -> &mut Shadow {
        &mut self.shadow
    }

    /// Whether the host's commands may go to the firmware.
    pub(super) fn takes_commands(&self, soc: &Soc) -> bool {
        matches!(self.firmware, Firmware::On { phase: Phase::Running, .. }) && soc.is_ready()
    }

    /// Whether frames may go to the firmware: the driver has said START, and the firmware is configured.
    pub(super) fn forwards(&self, soc: &Soc) -> bool {
        self.shadow.is_started() && self.takes_commands(soc)
    }

    fn is_restoring(&self) -> bool {
        matches!(self.firmware, Firmware::On { phase: Phase::Configuring | Phase::Replaying(_), .. })
    }

    /// Shows the driver a state, with an event and its interrupt.
    fn show(&self, state: FirmwareState) {
        self.registers.firmware_state.store(state as u32, Release);
        self.registers.event(EVENT_FIRMWARE);
        self.port.interrupt(VECTOR_EVENT);
    }

    /// Executes a request of the driver. Returns whether the firmware before has lost its packets.
    pub(super) fn execute(&mut self, request: Request, link: &mut FirmwareLink) -> bool {
        match request {
            Request::Start { image, len } => {
                if len > culvert_abi::image::MAX_LEN {
                    self.refuse(ImageError::Length);
                    return false;
                }
                let mut bytes = vec![0; len as usize];
                let read = self.port.memory().view().read(image, &mut bytes);
                if read.is_err() {
                    self.refuse(ImageError::Address);
                    return false;
                }
                self.shadow = Shadow::default();
                self.start(bytes, link);
            }
            Request::Stop | Request::Reset => {
                self.firmware = Firmware::Off;
                self.shadow = Shadow::default();
                link.soc.stop();
                link.reclaim(&self.registers.counters, Reason::QueueReset);
                self.show(FirmwareState::Off);
            }
        }
        true
    }

    fn refuse(&mut self, error: ImageError) {
        self.registers.error.store(error as u32, Release);
        self.show(FirmwareState::Refused);
    }

    /// Starts an image in the place of whatever runs.
    fn start(&mut self, image: Vec<u8>, link: &mut FirmwareLink) {
        link.soc.stop();
        link.reclaim(&self.registers.counters, Reason::FirmwareRestart);
        if self.mailbox == Mailbox::Pending {
            // The firmware that was asked cannot answer any more.
            self.mailbox = Mailbox::Idle;
            let mut reply = [0; MBOX_WORDS];
            reply[0] = Reason::FirmwareRestart as u32;
            self.registers.answer_mail(reply);
        }
        let heartbeat = Heartbeat::start();
        match link.soc.start(&image) {
            Ok(()) => {
                self.firmware = Firmware::On { image, heartbeat, phase: Phase::Booting };
                self.registers.epoch.store(link.soc.epoch(), Release);
                self.show(FirmwareState::Booting);
            }
            Err(SocError::Image(error)) => {
                self.firmware = Firmware::Off;
                self.refuse(error);
            }
            Err(error) => {
                tracing::error!("the firmware does not start: {error}");
                self.firmware = Firmware::On { image, heartbeat, phase: Phase::Dead };
                self.show(FirmwareState::Dead);
            }
        }
    }

    /// Carries mail from the host to the firmware and answers back.
    pub(super) fn exchange_mail(&mut self, soc: &mut Soc) {
        if self.mailbox == Mailbox::Idle
            && !self.is_restoring()
            && let Some(request) = self.registers.take_mail()
        {
            self.shadow.mail(&request);
            soc.send_mail(&request);
            self.mailbox = Mailbox::Pending;
        }
        if self.mailbox == Mailbox::Pending
            && let Some(reply) = soc.mail_reply()
        {
            self.mailbox = Mailbox::Idle;
            self.registers.answer_mail(reply);
            self.port.interrupt(VECTOR_MAILBOX);
        }
    }

    /// Checks that the firmware lives, ten times a second. Returns whether it was started again.
    pub(super) fn watch(&mut self, link: &mut FirmwareLink) -> bool {
        let Firmware::On { heartbeat, phase, .. } = &mut self.firmware else { return false };
        let beat = link.soc.heartbeat();
        heartbeat.observe(beat);
        self.registers.heartbeat.store(beat, Release);
        let (head, ring) = link.soc.log();
        self.registers.log_head.store(head, Release);
        self.registers.set_texts(ring, None);
        if matches!(phase, Phase::Booting) && link.soc.is_ready() {
            match self.shadow.configure() {
                Some(request) => {
                    link.soc.send_mail(&request);
                    *phase = Phase::Configuring;
                }
                None => {
                    *phase = Phase::Running;
                    self.show(FirmwareState::Ready);
                }
            }
            return false;
        }
        let silence = heartbeat.silence();
        let failed = match phase {
            Phase::Booting | Phase::Configuring | Phase::Replaying(_) => silence > BOOT,
            Phase::Running => silence > SILENCE || link.soc.word(ctrl::FW_READY).load(Acquire) == 0,
            Phase::Dead => true,
        };
        let dead = failed || !link.soc.is_running();
        if dead {
            self.restart(link);
        }
        dead
    }

    fn restart(&mut self, link: &mut FirmwareLink) {
        let panic = link.soc.panic_text();
        tracing::error!(epoch = link.soc.epoch(), panic, "the firmware is dead; starting it again");
        self.registers.set_texts(link.soc.log().1, Some(panic.into_bytes()));
        self.show(FirmwareState::Dead);
        if let Firmware::On { image, .. } = std::mem::replace(&mut self.firmware, Firmware::Off) {
            self.start(image, link);
        }
    }

    /// Replays more of the shadow to a restarted firmware. Returns whether anything was done.
    pub(super) fn restore(&mut self, link: &mut FirmwareLink) -> bool {
        let Firmware::On { phase, .. } = &mut self.firmware else { return false };
        match phase {
            Phase::Booting | Phase::Running | Phase::Dead => false,
            Phase::Configuring => {
                let answered = link.soc.mail_reply().is_some();
                if answered {
                    *phase = Phase::Replaying(self.shadow.replay());
                }
                answered
            }
            Phase::Replaying(left) => {
                let Some(command) = left.front() else {
                    *phase = Phase::Running;
                    self.show(FirmwareState::Ready);
                    return true;
                };
                let sent = link.push_command(command);
                if sent {
                    left.pop_front();
                }
                sent
            }
        }
    }
}
