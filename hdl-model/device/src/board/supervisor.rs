//! Watches the firmware: notices a dead one within a second, starts it again and replays the host's configuration to it,
//! without the host.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use culvert_abi::image::ImageError;
use culvert_abi::pci::{VECTOR_EVENT, VECTOR_MAILBOX};
use culvert_abi::regs::{EVENT_FIRMWARE, FirmwareState, MBOX_WORDS, mailbox};
use culvert_abi::soc::{RX_SIZE, ctrl};
use culvert_packet::Reason;

use super::clock::{Backoff, Heartbeat};
use super::firmware_link::FirmwareLink;
use super::registers::{Request, State};
use super::shadow::{Command, Shadow};
use crate::function::PfPort;
use crate::soc::{Soc, SocError};

/// Ticks of silence after which a running firmware counts as dead. It beats twice a tick; a loaded computer may delay it.
const SILENCE: u32 = 9;
/// Ticks after which a firmware that has started is expected to be ready, or to have its tables back.
const BOOT: u32 = 150;
/// Ticks in which a firmware answers a request in its mailbox: one that beats and does not answer hangs.
const ANSWER: u32 = 50;
/// Ticks after which a firmware that runs has outlived the deaths before.
const STABLE: u32 = 50;

/// The firmware's state, its mailbox, and the shadow of its configuration.
pub(super) struct Supervisor {
    registers: Arc<State>,
    port: Arc<PfPort>,
    firmware: Firmware,
    mailbox: Mailbox,
    shadow: Shadow,
    /// Since the driver's first image: an emulator that cannot start is not tried at full speed.
    backoff: Backoff,
    /// The firmware has answered a CONFIGURE since it was started.
    configured: bool,
    /// The host's last request in the mailbox.
    asked: u32,
}

/// The firmware as the board knows it.
enum Firmware {
    /// There is no image: the driver has loaded none or stopped it, or the board has refused it.
    Off,
    /// An image that is kept running, and the ticks since its phase began.
    On { image: Vec<u8>, heartbeat: Heartbeat, phase: Phase, ticks: u32 },
}

/// How far an image is.
enum Phase {
    /// Started; does not serve its rings yet.
    Booting,
    /// The host's CONFIGURE is in the mailbox again.
    Configuring,
    /// The host's commands are sent again: those that are left. It ends when the firmware has executed all.
    Replaying(VecDeque<Command>),
    /// Serves its rings and is configured.
    Running,
    /// It has died or did not start: it is started when its turn has come.
    Dead,
}

/// The mailbox between host and firmware.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mailbox {
    Idle,
    /// A request of the host is at the firmware, for so many ticks.
    Pending(u32),
}

impl Supervisor {
    pub(super) fn new(registers: Arc<State>, port: Arc<PfPort>) -> Self {
        let (firmware, mailbox, shadow) = (Firmware::Off, Mailbox::Idle, Shadow::default());
        Supervisor {
            registers,
            port,
            firmware,
            mailbox,
            shadow,
            backoff: Backoff::default(),
            configured: false,
            asked: 0,
        }
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
        self.configured && self.shadow.is_started() && self.takes_commands(soc)
    }

    /// Whether the firmware does not serve its mailbox yet, or the board has something to say first.
    fn is_restoring(&self) -> bool {
        !matches!(self.firmware, Firmware::On { phase: Phase::Running, .. })
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
                self.load(bytes, link);
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

    /// Stops whatever runs, and starts an image in its place, now or when its turn has come.
    fn load(&mut self, image: Vec<u8>, link: &mut FirmwareLink) {
        link.soc.stop();
        link.reclaim(&self.registers.counters, Reason::FirmwareRestart);
        self.refuse_mail();
        if self.backoff.is_over() {
            self.start(image, link);
        } else {
            self.set_phase(image, Phase::Dead);
            self.show(FirmwareState::Dead);
        }
    }

    /// Answers a request of the driver that nothing else can answer any more.
    fn refuse_mail(&mut self) {
        if let Mailbox::Pending(_) = std::mem::replace(&mut self.mailbox, Mailbox::Idle) {
            let mut reply = [0; MBOX_WORDS];
            reply[0] = Reason::FirmwareRestart as u32;
            self.registers.answer_mail(reply);
        }
    }

    fn set_phase(&mut self, image: Vec<u8>, phase: Phase) {
        self.firmware = Firmware::On { image, heartbeat: Heartbeat::start(), phase, ticks: 0 };
    }

    /// Shows the driver why the firmware died or cannot start.
    fn show_last_words(&self, text: &str, link: &FirmwareLink) {
        let mut bytes = text.as_bytes().to_vec();
        // The driver reads whole words.
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        self.registers.set_texts(link.soc.log().1, Some(bytes));
    }

    /// Starts an image on the stopped SoC.
    fn start(&mut self, image: Vec<u8>, link: &mut FirmwareLink) {
        self.refuse_mail();
        self.configured = false;
        match link.soc.start(&image) {
            Ok(()) => {
                self.set_phase(image, Phase::Booting);
                self.registers.epoch.store(link.soc.epoch(), Release);
                self.show(FirmwareState::Booting);
            }
            Err(SocError::Image(error)) => {
                self.firmware = Firmware::Off;
                self.refuse(error);
            }
            Err(error) => {
                let delay = self.backoff.fail();
                let attempts = self.backoff.failures();
                tracing::error!(attempts, "the firmware does not start: {error}; trying again in {delay:?}");
                // The driver reads the reason where it reads that of a death.
                let text = format!("the board cannot start its processor: {error}");
                self.show_last_words(&text, link);
                self.set_phase(image, Phase::Dead);
                self.show(FirmwareState::Dead);
            }
        }
    }

    /// Carries mail from the host to the firmware and answers back. Returns whether the driver has said START.
    pub(super) fn exchange_mail(&mut self, soc: &mut Soc) -> bool {
        let mut started = false;
        if self.mailbox == Mailbox::Idle
            && !self.is_restoring()
            && let Some(request) = self.registers.take_mail()
        {
            self.shadow.mail(&request);
            soc.send_mail(&request);
            self.mailbox = Mailbox::Pending(0);
            self.asked = request[0];
            started = request[0] == mailbox::START;
        }
        if let Mailbox::Pending(_) = self.mailbox
            && let Some(reply) = soc.mail_reply()
        {
            self.mailbox = Mailbox::Idle;
            self.registers.answer_mail(reply);
            self.port.interrupt(VECTOR_MAILBOX);
            self.configured |= self.asked == mailbox::CONFIGURE;
        }
        started
    }

    /// Checks that the firmware lives, once a tick. Returns whether it has died.
    pub(super) fn watch(&mut self, link: &mut FirmwareLink) -> bool {
        let unanswered = match &mut self.mailbox {
            Mailbox::Idle => false,
            Mailbox::Pending(ticks) => {
                *ticks += 1;
                *ticks > ANSWER
            }
        };
        let Firmware::On { heartbeat, phase, ticks, .. } = &mut self.firmware else { return false };
        let beat = link.soc.heartbeat();
        heartbeat.observe(beat);
        *ticks = ticks.saturating_add(1);
        self.registers.heartbeat.store(beat, Release);
        let (head, ring) = link.soc.log();
        self.registers.log_head.store(head, Release);
        self.registers.set_texts(ring, None);
        if matches!(phase, Phase::Booting) && link.soc.is_ready() {
            *ticks = 0;
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
        let why = match phase {
            Phase::Dead => {
                self.start_if_due(link);
                return false;
            }
            Phase::Running | Phase::Configuring if unanswered => {
                Some("it beats, but does not answer a request")
            }
            Phase::Configuring if *ticks > ANSWER => Some("it beats, but does not answer CONFIGURE"),
            Phase::Booting if *ticks > BOOT => Some("it does not become ready"),
            Phase::Replaying(_) if *ticks > BOOT => Some("it does not take its tables back"),
            Phase::Running if heartbeat.silence() > SILENCE => Some("its heartbeat has stopped"),
            Phase::Running if link.soc.word(ctrl::FW_READY).load(Acquire) == 0 => {
                Some("it has left its rings")
            }
            _ if !link.soc.is_running() => Some("its process has ended"),
            _ => None,
        };
        if matches!(phase, Phase::Running) && *ticks == STABLE {
            self.backoff.clear();
        }
        if let Some(why) = why {
            self.restart(why, link);
        }
        why.is_some()
    }

    fn start_if_due(&mut self, link: &mut FirmwareLink) {
        if self.backoff.is_over()
            && let Firmware::On { image, .. } = std::mem::replace(&mut self.firmware, Firmware::Off)
        {
            self.start(image, link);
        }
    }

    fn restart(&mut self, why: &str, link: &mut FirmwareLink) {
        let panic = link.soc.panic_text();
        let (epoch, delay) = (link.soc.epoch(), self.backoff.fail());
        tracing::error!(epoch, panic, "the firmware is dead: {why}; starting it again in {delay:?}");
        let text = if panic.is_empty() { format!("no panic: {why}") } else { panic };
        self.show_last_words(&text, link);
        self.show(FirmwareState::Dead);
        if let Firmware::On { image, .. } = std::mem::replace(&mut self.firmware, Firmware::Off) {
            self.load(image, link);
        }
    }

    /// Replays more of the shadow to a restarted firmware. Returns whether anything was done.
    pub(super) fn restore(&mut self, link: &mut FirmwareLink) -> bool {
        let Firmware::On { phase, ticks, .. } = &mut self.firmware else { return false };
        match phase {
            Phase::Booting | Phase::Running | Phase::Dead => false,
            Phase::Configuring => {
                let answered = link.soc.mail_reply().is_some();
                if answered {
                    *ticks = 0;
                    self.configured = true;
                    *phase = Phase::Replaying(self.shadow.replay());
                }
                answered
            }
            Phase::Replaying(left) => {
                let Some(command) = left.front() else {
                    // Its answers wake the board.
                    if link.soc.room() < RX_SIZE {
                        return false;
                    }
                    *ticks = 0;
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
