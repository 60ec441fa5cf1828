//! The connection of a VMM: what it says of its guest's memory and rings (the vhost-user protocol, back-end side).
//!
//! A ring begins when everything that it needs is known, its file for kicks as the last, and ends when the VMM asks
//! where it stands. Whatever changes what a running ring rests on ends it and begins it anew; it goes on where its used
//! index says.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::RingFault;
use super::features::Features;
use super::memory::{Description, Memory};
use super::orders::{Bell, Order, Orders, Running};
use super::ring::{Layout, MAX_SIZE, Ring};
use super::status::Shared;

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
    /// Descriptors, available, used.
    places: Option<[u64; 3]>,
    base: u16,
    kick: Kick,
    call: Bell,
    error: Bell,
    enabled: bool,
    running: bool,
}

/// The connection, or none.
pub(super) struct Session {
    orders: Orders,
    shared: Arc<Shared>,
    features: Option<Features>,
    memory: Option<Arc<Memory>>,
    rings: Vec<Setup>,
}

fn wrong<T>(_: T) -> Error {
    Error::InvalidParam
}

/// A file of the VMM's to be written to: an eventfd, made not to wait, since others might have any file wait for them.
fn eventfd(file: File) -> Result<OwnedFd> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(wrong)?;
    if link.to_str() != Some("anon_inode:[eventfd]") {
        return Err(Error::InvalidParam);
    }
    let fd = OwnedFd::from(file);
    let flags = fcntl_getfl(&fd).map_err(wrong)?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(wrong)?;
    Ok(fd)
}

fn bell(file: Option<File>) -> Result<Bell> {
    file.map(|file| eventfd(file).map(Arc::new)).transpose()
}

impl Session {
    /// Nothing is known yet of up to `pairs` pairs of rings.
    pub(super) fn new(orders: Orders, shared: &Arc<Shared>, pairs: usize) -> Self {
        let rings = std::iter::repeat_with(Setup::default).take(2 * pairs).collect();
        Session { orders, shared: Arc::clone(shared), features: None, memory: None, rings }
    }

    /// The connection is over: nothing of it is kept.
    pub(super) fn end(&mut self) {
        for n in 0..self.rings.len() {
            // Without an answer the port itself is going.
            let _stopped = self.stop(n);
            self.forget_kick(n);
        }
        self.rings.fill_with(Setup::default);
        (self.features, self.memory) = (None, None);
    }

    fn setup(&mut self, n: usize) -> Result<&mut Setup> {
        self.rings.get_mut(n).ok_or(Error::InvalidParam)
    }

    fn give(&self, order: Order) -> Result<Option<Box<Running>>> {
        Ok(self.orders.give(order).ok_or(Error::BackendInternalError)?.ring)
    }

    /// Ends a ring. It is not touched any more when this returns.
    fn stop(&mut self, n: usize) -> Result<()> {
        if self.setup(n)?.running {
            let ring = self.give(Order::Exchange(n, None))?;
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
        let Some([descriptors, available, used]) = setup.places else { return Ok(()) };
        if setup.size == 0 || matches!(setup.kick, Kick::Unknown) {
            return Ok(());
        }
        let layout = Layout { size: setup.size, descriptors, available, used };
        let ring = Ring::new(&memory, &layout, features.event_idx(), features.indirect());
        let ring = ring.map_err(|fault| self.fault(n, fault))?;
        let setup = self.setup(n)?;
        let running = Running {
            ring,
            features,
            call: setup.call.clone(),
            error: setup.error.clone(),
            enabled: setup.enabled || !features.protocol(),
            polled: matches!(setup.kick, Kick::Polled),
            broken: false,
        };
        setup.running = true;
        self.give(Order::Exchange(n, Some(Box::new(running)))).map(drop)
    }

    fn fault(&self, n: usize, fault: RingFault) -> Error {
        self.shared.fault(fault);
        tracing::warn!(ring = n, %fault, "a ring of a VM cannot begin");
        Error::InvalidParam
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
            self.orders.unwatch(&file);
        }
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    /// Deprecated, and was never the same everywhere.
    fn reset_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(Features::OFFERED)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let features = Features::accept(features).ok_or(Error::InvalidParam)?;
        // QEMU says it once for each pair of rings.
        if self.features.replace(features) == Some(features) {
            return Ok(());
        }
        self.restart()
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let describe = |region: &VhostUserMemoryRegion| Description {
            guest: region.guest_phys_addr,
            user: region.user_addr,
            len: region.memory_size,
            offset: region.mmap_offset,
        };
        let memory = Memory::new(regions.iter().map(describe).zip(files)).ok_or(Error::InvalidParam)?;
        self.memory = Some(Arc::new(memory));
        self.restart()?;
        Ok(None)
    }

    fn set_vring_num(&mut self, n: u32, size: u32) -> Result<()> {
        let setup = self.setup(n as usize)?;
        let good = size.is_power_of_two() && size <= u32::from(MAX_SIZE);
        setup.size = if good { size as u16 } else { return Err(Error::InvalidParam) };
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        n: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let setup = self.setup(n as usize)?;
        setup.places = Some([descriptors, available, used]);
        if setup.running { self.start(n as usize) } else { Ok(()) }
    }

    fn set_vring_base(&mut self, n: u32, base: u32) -> Result<()> {
        // Only where the ring stands that never ran: else its own used index says so, which is right also when whoever
        // used it before has died between two frames.
        self.setup(n as usize)?.base = base as u16;
        Ok(())
    }

    fn get_vring_base(&mut self, n: u32) -> Result<VhostUserVringState> {
        self.stop(n as usize)?;
        self.forget_kick(n as usize);
        let setup = self.setup(n as usize)?;
        Ok(VhostUserVringState::new(n, setup.base.into()))
    }

    fn set_vring_kick(&mut self, n: u8, file: Option<File>) -> Result<()> {
        let n = usize::from(n);
        self.setup(n)?;
        self.stop(n)?;
        self.forget_kick(n);
        let kick = match file {
            Some(file) => {
                let file = eventfd(file)?;
                self.orders.watch(&file).map_err(wrong)?;
                Kick::File(file)
            }
            None => Kick::Polled,
        };
        self.setup(n)?.kick = kick;
        self.start(n)
    }

    fn set_vring_call(&mut self, n: u8, file: Option<File>) -> Result<()> {
        let call = bell(file)?;
        let setup = self.setup(n.into())?;
        setup.call.clone_from(&call);
        if setup.running { self.give(Order::Call(n.into(), call)).map(drop) } else { Ok(()) }
    }

    fn set_vring_err(&mut self, n: u8, file: Option<File>) -> Result<()> {
        let error = bell(file)?;
        let setup = self.setup(n.into())?;
        setup.error = error;
        if setup.running { self.start(n.into()) } else { Ok(()) }
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let offered = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        if features & !offered.bits() == 0 { Ok(()) } else { Err(Error::InvalidParam) }
    }

    /// Of a network device: pairs.
    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.rings.len() as u64 / 2)
    }

    fn set_vring_enable(&mut self, n: u32, enable: bool) -> Result<()> {
        let setup = self.setup(n as usize)?;
        setup.enabled = enable;
        if setup.running { self.give(Order::Enable(n as usize, enable)).map(drop) } else { Ok(()) }
    }

    // What follows belongs to features that are not offered: the connection ends.

    fn reset_device(&mut self) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_config(&mut self, _at: u32, _len: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(NOT_OFFERED)
    }

    fn set_config(&mut self, _at: u32, _bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shared_object(&mut self, _object: VhostUserSharedMsg) -> Result<File> {
        Err(NOT_OFFERED)
    }

    fn get_inflight_fd(&mut self, _about: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(NOT_OFFERED)
    }

    fn set_inflight_fd(&mut self, _about: &VhostUserInflight, _file: File) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(NOT_OFFERED)
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<u64>> {
        Err(NOT_OFFERED)
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        Err(NOT_OFFERED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(NOT_OFFERED)
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(NOT_OFFERED)
    }
}

const NOT_OFFERED: Error = Error::InvalidOperation("it was not offered");
