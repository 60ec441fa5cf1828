//! Executes a VMM's requests: memory table and vrings of its guest (the vhost-user protocol, back-end side).
//!
//! A vring starts when all its settings are known, usually with its kick eventfd, and stops when the VMM gets its base. A
//! request that changes the settings of a running vring restarts it; it continues at its used index.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use culvert_virtio::{Layout, MemoryShare, Options, PinnedParts, Ring, RingFault};

use super::call_fd::{CallFd, kick_fd};
use super::control::{ActiveVring, ControlTx, VringCommand};
use super::features::Features;
use super::mem_table::{MemRegion, MemTable};
use super::message::{Reply, Request, VringAddr};
use super::refusal::Refusal;
use super::status::PortStatus;

/// Protocol features: several queue pairs, and acknowledged requests.
const MQ: u64 = 1 << 0;
const REPLY_ACK: u64 = 1 << 3;

/// Largest size of a vring, the same as QEMU's.
const MAX_SIZE: u16 = 1024;

/// A result, or why a request is refused.
type Result<T> = std::result::Result<T, Refusal>;

/// How a guest kicks.
#[derive(Default)]
enum Kick {
    /// Not set yet: the vring must not start.
    #[default]
    Unknown,
    /// Not at all: the vring must be polled.
    Polled,
    EventFd(OwnedFd),
}

/// The settings of a vring.
#[derive(Default)]
struct VringSetup {
    size: u16,
    addr: Option<VringAddr>,
    base: u16,
    kick: Kick,
    call: Option<CallFd>,
    error: Option<CallFd>,
    enabled: bool,
    running: bool,
}

/// State of the connection.
pub(super) struct Session {
    control: ControlTx,
    status: Arc<PortStatus>,
    features: Option<Features>,
    /// Whether requests that ask for it are acknowledged.
    acknowledges: bool,
    memory: Option<Arc<MemTable>>,
    /// What the VMM may have mapped.
    share: Arc<MemoryShare>,
    vrings: Vec<VringSetup>,
}

/// The eventfd of a request, if it has one.
fn call_fd(file: Option<OwnedFd>) -> Result<Option<CallFd>> {
    Ok(file.map(CallFd::new).transpose()?)
}

/// Opens a vring in the guest's memory, which continues at its used index.
fn open_vring(
    memory: &MemTable,
    layout: &Layout,
    features: Features,
) -> std::result::Result<(Ring, PinnedParts), RingFault> {
    layout.check(MAX_SIZE)?;
    let parts = memory.parts(layout)?;
    let options = Options { event_idx: features.event_idx(), indirect: features.indirect() };
    Ok((Ring::resume(&parts, layout.size, options)?, parts))
}

impl Session {
    /// A session without a connection, for up to `pairs` queue pairs.
    pub(super) fn new(control: ControlTx, status: &Arc<PortStatus>, pairs: usize) -> Self {
        let vrings = std::iter::repeat_with(VringSetup::default).take(2 * pairs).collect();
        Session {
            control,
            status: Arc::clone(status),
            features: None,
            acknowledges: false,
            memory: None,
            share: MemoryShare::new(),
            vrings,
        }
    }

    /// Ends the connection: stops all vrings and forgets all settings.
    pub(super) fn end(&mut self) {
        for n in 0..self.vrings.len() {
            // Fails only if the port itself is being closed.
            let _stopped = self.stop(n);
            self.remove_kick(n);
        }
        self.vrings.fill_with(VringSetup::default);
        (self.features, self.acknowledges, self.memory) = (None, false, None);
    }

    fn setup(&mut self, n: usize) -> Result<&mut VringSetup> {
        self.vrings.get_mut(n).ok_or(Refusal::Invalid("no such vring"))
    }

    fn command(&self, command: VringCommand) -> Result<Option<Box<ActiveVring>>> {
        Ok(self.control.execute(command).ok_or("the port is being closed")?.vring)
    }

    /// Stops a vring. It is no longer in use when this returns.
    fn stop(&mut self, n: usize) -> Result<()> {
        if self.setup(n)?.running {
            let stopped = self.command(VringCommand::Replace(n, None))?;
            let setup = self.setup(n)?;
            setup.running = false;
            setup.base = stopped.map_or(setup.base, |vring| vring.ring.next());
        }
        Ok(())
    }

    /// Starts a vring if all its settings are known; restarts it if it is running.
    fn start(&mut self, n: usize) -> Result<()> {
        self.stop(n)?;
        let (Some(memory), Some(features)) = (self.memory.clone(), self.features) else { return Ok(()) };
        let setup = self.setup(n)?;
        let Some(addr) = setup.addr else { return Ok(()) };
        if setup.size == 0 || matches!(setup.kick, Kick::Unknown) {
            return Ok(());
        }
        let VringAddr { descriptors, available, used } = addr;
        let layout = Layout { size: setup.size, descriptors, available, used };
        let (ring, parts) = open_vring(&memory, &layout, features).map_err(|fault| self.fault(n, fault))?;
        let setup = self.setup(n)?;
        let vring = ActiveVring {
            ring,
            parts,
            features,
            call: setup.call.clone(),
            error: setup.error.clone(),
            enabled: setup.enabled || !features.protocol(),
            polled: matches!(setup.kick, Kick::Polled),
            broken: false,
        };
        setup.running = true;
        self.command(VringCommand::Replace(n, Some(Box::new(vring)))).map(drop)
    }

    fn fault(&self, n: usize, fault: RingFault) -> &'static str {
        self.status.count_fault(fault);
        tracing::warn!(path = %self.status.path.display(), vring = n, %fault, "cannot start a vring");
        "cannot start the vring"
    }

    /// Restarts all running vrings.
    fn restart(&mut self) -> Result<()> {
        for n in 0..self.vrings.len() {
            if self.vrings[n].running {
                self.start(n)?;
            }
        }
        Ok(())
    }

    fn remove_kick(&mut self, n: usize) {
        let Some(setup) = self.vrings.get_mut(n) else { return };
        if let Kick::EventFd(file) = std::mem::take(&mut setup.kick) {
            self.control.unwatch(&file);
        }
    }

    /// Whether requests that ask for it are acknowledged.
    pub(super) fn acknowledges(&self) -> bool {
        self.acknowledges
    }

    /// Executes a request.
    pub(super) fn execute(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::GetFeatures => return Ok(Reply::Number(Features::OFFERED)),
            Request::GetProtocolFeatures => return Ok(Reply::Number(MQ | REPLY_ACK)),
            // For a network device this is the number of queue pairs.
            Request::GetQueueNum => return Ok(Reply::Number(self.vrings.len() as u64 / 2)),
            Request::GetVringBase(n) => return self.get_base(n),
            // RESET_OWNER is deprecated, and front ends disagree about its meaning.
            Request::SetOwner | Request::ResetOwner => {}
            Request::SetFeatures(bits) => self.set_features(bits)?,
            Request::SetProtocolFeatures(bits) if bits & !(MQ | REPLY_ACK) != 0 => {
                return Err("a protocol feature that was not offered".into());
            }
            Request::SetProtocolFeatures(bits) => self.acknowledges = bits & REPLY_ACK != 0,
            Request::SetMemTable(regions) => self.set_memory(regions)?,
            Request::SetVringNum(n, size) => {
                let valid = size.is_power_of_two() && size <= u32::from(MAX_SIZE);
                self.setup(n)?.size =
                    if valid { size as u16 } else { return Err("invalid size of a vring".into()) };
            }
            Request::SetVringAddr(n, addr) => {
                let setup = self.setup(n)?;
                setup.addr = Some(addr);
                if setup.running {
                    self.start(n)?;
                }
            }
            // Only the base of a vring that never runs: others continue at their used index, which is right also if the
            // former back end died between two frames.
            Request::SetVringBase(n, base) => self.setup(n)?.base = base as u16,
            Request::SetVringKick(n, file) => self.set_kick(n, file)?,
            Request::SetVringCall(n, file) => {
                let call = call_fd(file)?;
                let setup = self.setup(n)?;
                setup.call.clone_from(&call);
                if setup.running {
                    self.command(VringCommand::SetCall(n, call))?;
                }
            }
            Request::SetVringErr(n, file) => {
                let error = call_fd(file)?;
                let setup = self.setup(n)?;
                setup.error = error;
                if setup.running {
                    self.start(n)?;
                }
            }
            Request::SetVringEnable(n, enabled) => {
                let setup = self.setup(n)?;
                setup.enabled = enabled;
                if setup.running {
                    self.command(VringCommand::Enable(n, enabled))?;
                }
            }
        }
        Ok(Reply::Ack)
    }

    fn set_features(&mut self, bits: u64) -> Result<()> {
        let features = Features::negotiate(bits).ok_or("a feature that was not offered")?;
        // QEMU sets the features once for each queue pair.
        if self.features.replace(features) == Some(features) { Ok(()) } else { self.restart() }
    }

    fn set_memory(&mut self, regions: Vec<(MemRegion, OwnedFd)>) -> Result<()> {
        let memory = MemTable::map(regions, self.memory.as_deref(), &self.share)?;
        self.memory = Some(Arc::new(memory));
        self.restart()
    }

    fn get_base(&mut self, n: usize) -> Result<Reply> {
        self.stop(n)?;
        self.remove_kick(n);
        Ok(Reply::VringBase(n, self.setup(n)?.base))
    }

    fn set_kick(&mut self, n: usize, file: Option<OwnedFd>) -> Result<()> {
        self.stop(n)?;
        self.remove_kick(n);
        let kick = match file {
            Some(file) => {
                let file = kick_fd(file)?;
                self.control.watch(&file).map_err(|_| "the kick eventfd cannot be polled")?;
                Kick::EventFd(file)
            }
            None => Kick::Polled,
        };
        self.setup(n)?.kick = kick;
        self.start(n)
    }
}
