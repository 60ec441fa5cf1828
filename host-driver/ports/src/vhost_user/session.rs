//! The connection of a VMM: what it says of its guest's memory and rings (the vhost-user protocol, back-end side).
//!
//! A ring begins when everything that it needs is known, its file for kicks as the last, and ends when the VMM asks
//! where it stands. Whatever changes what a running ring rests on ends it and begins it anew; it goes on where its used
//! index says.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use culvert_virtio::{Layout, Options, PinnedParts, Ring, RingFault};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::control::{ActiveVring, ControlTx, Notifier, VringCommand};
use super::features::Features;
use super::memory::{Description, Memory};
use super::message::{Reply, Request, VringAddr};
use super::status::Shared;

/// Protocol features: more than one pair of rings, and acknowledged requests.
const MQ: u64 = 1 << 0;
const REPLY_ACK: u64 = 1 << 3;

/// Largest ring that is taken, as it is for QEMU.
const MAX_SIZE: u16 = 1024;

/// A result, or what is wrong with a request.
type Result<T> = std::result::Result<T, &'static str>;

/// How a guest says that it has made something available.
#[derive(Default)]
enum Kick {
    /// Nothing was said yet: the ring is not to begin.
    #[default]
    Unknown,
    /// Not at all: it is to be looked for.
    Polled,
    File(OwnedFd),
}

/// What is known of a ring.
#[derive(Default)]
struct Setup {
    size: u16,
    places: Option<VringAddr>,
    base: u16,
    kick: Kick,
    call: Notifier,
    error: Notifier,
    enabled: bool,
    running: bool,
}

/// The connection, or none.
pub(super) struct Session {
    control: ControlTx,
    shared: Arc<Shared>,
    features: Option<Features>,
    acknowledges: bool,
    memory: Option<Arc<Memory>>,
    rings: Vec<Setup>,
}

/// A file of the VMM's to be written to: an eventfd, made not to wait, since other files might have one wait for them.
fn eventfd(fd: OwnedFd) -> Result<OwnedFd> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if link.ok().as_deref().and_then(std::path::Path::to_str) != Some("anon_inode:[eventfd]") {
        return Err("a file that is no eventfd");
    }
    let flags = fcntl_getfl(&fd).map_err(|_| "an odd file")?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(|_| "an odd file")?;
    Ok(fd)
}

fn bell(file: Option<OwnedFd>) -> Result<Notifier> {
    file.map(|file| eventfd(file).map(Arc::new)).transpose()
}

/// A ring in the guest's memory, which continues where its used index says.
fn open_ring(
    memory: &Memory,
    layout: &Layout,
    features: Features,
) -> std::result::Result<(Ring, PinnedParts), RingFault> {
    layout.check(MAX_SIZE)?;
    let parts = memory.parts(layout)?;
    let options = Options { event_idx: features.event_idx(), indirect: features.indirect() };
    Ok((Ring::resume(&parts, layout.size, options)?, parts))
}

impl Session {
    /// Nothing is known yet of up to `pairs` pairs of rings.
    pub(super) fn new(control: ControlTx, shared: &Arc<Shared>, pairs: usize) -> Self {
        let rings = std::iter::repeat_with(Setup::default).take(2 * pairs).collect();
        Session {
            control,
            shared: Arc::clone(shared),
            features: None,
            acknowledges: false,
            memory: None,
            rings,
        }
    }

    /// The connection is over: nothing of it is kept.
    pub(super) fn end(&mut self) {
        for n in 0..self.rings.len() {
            // Without an answer the port itself is going.
            let _stopped = self.stop(n);
            self.forget_kick(n);
        }
        self.rings.fill_with(Setup::default);
        (self.features, self.acknowledges, self.memory) = (None, false, None);
    }

    fn setup(&mut self, n: usize) -> Result<&mut Setup> {
        self.rings.get_mut(n).ok_or("there is no such ring")
    }

    fn give(&self, order: VringCommand) -> Result<Option<Box<ActiveVring>>> {
        Ok(self.control.give(order).ok_or("the port is going")?.ring)
    }

    /// Ends a ring. It is not touched any more when this returns.
    fn stop(&mut self, n: usize) -> Result<()> {
        if self.setup(n)?.running {
            let ring = self.give(VringCommand::Exchange(n, None))?;
            let setup = self.setup(n)?;
            setup.running = false;
            setup.base = ring.map_or(setup.base, |running| running.ring.next());
        }
        Ok(())
    }

    /// Begins a ring if all is known that it needs, anew if it is running.
    fn start(&mut self, n: usize) -> Result<()> {
        self.stop(n)?;
        let (Some(memory), Some(features)) = (self.memory.clone(), self.features) else { return Ok(()) };
        let setup = self.setup(n)?;
        let Some(places) = setup.places else { return Ok(()) };
        if setup.size == 0 || matches!(setup.kick, Kick::Unknown) {
            return Ok(());
        }
        let VringAddr { descriptors, available, used } = places;
        let layout = Layout { size: setup.size, descriptors, available, used };
        let (ring, parts) = open_ring(&memory, &layout, features).map_err(|fault| self.fault(n, fault))?;
        let setup = self.setup(n)?;
        let running = ActiveVring {
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
        self.give(VringCommand::Exchange(n, Some(Box::new(running)))).map(drop)
    }

    fn fault(&self, n: usize, fault: RingFault) -> &'static str {
        self.shared.fault(fault);
        tracing::warn!(path = %self.shared.path.display(), ring = n, %fault, "a ring of a VM cannot begin");
        "a ring cannot begin"
    }

    /// Begins those rings anew that are running.
    fn restart(&mut self) -> Result<()> {
        for n in 0..self.rings.len() {
            if self.rings[n].running {
                self.start(n)?;
            }
        }
        Ok(())
    }

    fn forget_kick(&mut self, n: usize) {
        let Some(setup) = self.rings.get_mut(n) else { return };
        if let Kick::File(file) = std::mem::take(&mut setup.kick) {
            self.control.unwatch(&file);
        }
    }

    /// Whether requests are acknowledged that ask for it.
    pub(super) fn acknowledges(&self) -> bool {
        self.acknowledges
    }

    /// Does what is asked for.
    pub(super) fn execute(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::GetFeatures => return Ok(Reply::Number(Features::OFFERED)),
            Request::GetProtocolFeatures => return Ok(Reply::Number(MQ | REPLY_ACK)),
            // Of a network device: pairs.
            Request::GetQueues => return Ok(Reply::Number(self.rings.len() as u64 / 2)),
            Request::GetBase(n) => return self.base(n),
            // The latter is deprecated, and was never the same everywhere.
            Request::SetOwner | Request::ResetOwner => {}
            Request::SetFeatures(bits) => self.set_features(bits)?,
            Request::SetProtocolFeatures(bits) if bits & !(MQ | REPLY_ACK) != 0 => {
                return Err("a protocol feature that was not offered");
            }
            Request::SetProtocolFeatures(bits) => self.acknowledges = bits & REPLY_ACK != 0,
            Request::SetMemTable(regions) => self.set_memory(regions)?,
            Request::SetVringNum(n, size) => {
                let good = size.is_power_of_two() && size <= u32::from(MAX_SIZE);
                self.setup(n)?.size = if good { size as u16 } else { return Err("an odd size of a ring") };
            }
            Request::SetVringAddr(n, places) => {
                let setup = self.setup(n)?;
                setup.places = Some(places);
                if setup.running {
                    self.start(n)?;
                }
            }
            // It counts only for a ring that never runs: else its own used index says where to go on, which is right also
            // when who used it before has died between two frames.
            Request::SetBase(n, base) => self.setup(n)?.base = base as u16,
            Request::SetKick(n, file) => self.set_kick(n, file)?,
            Request::SetCall(n, file) => {
                let call = bell(file)?;
                let setup = self.setup(n)?;
                setup.call.clone_from(&call);
                if setup.running {
                    self.give(VringCommand::Call(n, call))?;
                }
            }
            Request::SetError(n, file) => {
                let error = bell(file)?;
                let setup = self.setup(n)?;
                setup.error = error;
                if setup.running {
                    self.start(n)?;
                }
            }
            Request::Enable(n, enabled) => {
                let setup = self.setup(n)?;
                setup.enabled = enabled;
                if setup.running {
                    self.give(VringCommand::Enable(n, enabled))?;
                }
            }
        }
        Ok(Reply::Done)
    }

    fn set_features(&mut self, bits: u64) -> Result<()> {
        let features = Features::accept(bits).ok_or("a feature that was not offered")?;
        // QEMU says it once for each pair of rings.
        if self.features.replace(features) == Some(features) { Ok(()) } else { self.restart() }
    }

    fn set_memory(&mut self, regions: Vec<(Description, OwnedFd)>) -> Result<()> {
        let memory = Memory::new(regions).ok_or("memory that cannot be mapped")?;
        self.memory = Some(Arc::new(memory));
        self.restart()
    }

    fn base(&mut self, n: usize) -> Result<Reply> {
        self.stop(n)?;
        self.forget_kick(n);
        Ok(Reply::Base(n, self.setup(n)?.base))
    }

    fn set_kick(&mut self, n: usize, file: Option<OwnedFd>) -> Result<()> {
        self.stop(n)?;
        self.forget_kick(n);
        let kick = match file {
            Some(file) => {
                let file = eventfd(file)?;
                self.control.watch(&file).map_err(|_| "a file that cannot be waited for")?;
                Kick::File(file)
            }
            None => Kick::Polled,
        };
        self.setup(n)?.kick = kick;
        self.start(n)
    }
}
