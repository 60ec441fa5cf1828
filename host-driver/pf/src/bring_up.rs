//! Bring-up: from a function that was opened to a NIC that takes commands.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use culvert_abi::command::Op;
use culvert_abi::pci;
use culvert_abi::regs::{
    self, CAPS, FirmwareState, QUEUE_COMMAND, QUEUE_COMPLETION, QUEUE_UPCALL, QUEUE_VMQ0,
};
use culvert_packet::MacAddr;
use culvert_pci::Device;

use crate::completion::Completions;
use crate::event::events;
use crate::nic::{Identity, Nic, Shared};
use crate::queue::{RxQueue, command_queue};
use crate::registers::Bar0;
use crate::sync::lock;
use crate::watchdog::Watchdog;
use crate::{Error, Result, firmware, mailbox};

/// Entries of queue 0 and of the exception queue, as a power of two.
const RING_LOG2: u32 = 10;
/// Of the completion queue: as many as commands under way in queue 0.
const COMPLETION_LOG2: u32 = 10;

/// What the NIC is brought up with.
#[derive(Clone)]
pub struct Config {
    /// The firmware image. Not needed to take a running NIC over.
    pub image: Vec<u8>,
    /// The flow hash's secret.
    pub secret: [u64; 9],
    /// The distributed router's MAC.
    pub router_mac: MacAddr,
}

impl Config {
    /// With a secret from the system's random numbers.
    ///
    /// # Errors
    /// There are none to be had.
    pub fn new(image: Vec<u8>, router_mac: MacAddr) -> Result<Self> {
        Ok(Config { image, secret: random_secret()?, router_mac })
    }
}

fn random_secret() -> Result<[u64; 9]> {
    use std::io::Read;
    let mut bytes = [0; 72];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .map_err(|source| Error::System { what: "random numbers from /dev/urandom", source })?;
    Ok(std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| bytes[8 * i + j]))))
}

fn identify(device: &dyn Device, bar: &Bar0) -> Result<Identity> {
    let (vendor, id) = device.id()?;
    let ours = (vendor, id) == (pci::VENDOR, pci::PF_DEVICE);
    if !ours || bar.read(regs::MAGIC)? != regs::MAGIC_VALUE {
        return Err(Error::NotOurs { device: device.name().into(), vendor, id });
    }
    let theirs = bar.read(regs::ABI)?;
    if theirs != culvert_abi::VERSION {
        let ours = culvert_abi::VERSION;
        return Err(Error::Abi { device: device.name().into(), part: "board", theirs, ours });
    }
    let caps = bar.read(CAPS)?;
    Ok(Identity {
        location: device.name().into(),
        vendor,
        device: id,
        name: culvert_pci::name_of(vendor, id),
        uplinks: (caps & 0xff) as u8,
        total_vfs: (caps >> 8 & 0xff) as u16,
        vmqs: ((caps >> 16 & 0xff) as u16).saturating_sub(QUEUE_VMQ0 as u16),
    })
}

impl Nic {
    /// Brings the NIC behind a function up, or takes it over. Packets flow after [`Nic::start`].
    ///
    /// # Errors
    /// It is no NIC of ours, versions do not fit, the image is refused, or it does not answer.
    pub fn open(device: Box<dyn Device>, config: &Config) -> Result<Nic> {
        let device: Arc<dyn Device> = Arc::from(device);
        let bar = Arc::new(Bar0::new(device.bar(0)?));
        let identity = identify(&*device, &bar)?;
        let found = firmware::status(&bar)?;
        let runs = match found.state {
            FirmwareState::Off | FirmwareState::Refused => false,
            // Died a moment ago: the board starts it again by itself.
            _ => firmware::wait_ready(device.name(), &bar).is_ok(),
        };
        if !runs {
            firmware::load(&*device, &bar, &config.image)?;
        }
        let info = mailbox::hello(&bar, device.name())?;

        let command = command_queue(&bar, &*device, QUEUE_COMMAND, RING_LOG2)?;
        let upcalls = RxQueue::new(&bar, &*device, QUEUE_UPCALL, RING_LOG2)?;
        let completions = RxQueue::new(&bar, &*device, QUEUE_COMPLETION, COMPLETION_LOG2)?;
        let shared = Arc::new(Shared {
            epoch: AtomicU32::new(firmware::status(&bar)?.epoch),
            device,
            bar,
            identity,
            command: Mutex::new(command),
            completions: Completions::default(),
            settings: Mutex::new((config.secret, config.router_mac)),
            info: Mutex::new(info),
            alive: AtomicBool::new(true),
            stop: AtomicBool::new(false),
        });
        let (reporter, events) = events()?;
        let watchdog = Watchdog::new(shared.clone(), reporter)?;
        let mut nic = Nic {
            shared: shared.clone(),
            upcalls: Mutex::new(Some(upcalls)),
            events: Mutex::new(Some(events)),
            adopted: false,
            threads: Vec::new(),
        };
        let server = shared.clone();
        nic.spawn("nic-completions", move || server.completions.serve(completions, &server.stop))?;
        nic.adopted = runs && shared.has_vports()?;
        if nic.adopted {
            // Another one would empty the flow table.
            lock(&shared.settings).1 = info.router_mac;
            shared.command(Op::HostRestart, 0, 0, &[])?;
        } else {
            shared.configure()?;
        }
        nic.spawn("nic-watchdog", move || watchdog.run())?;
        Ok(nic)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = Builder::new().name(name.into()).spawn(run);
        self.threads.push(thread.map_err(|source| Error::System { what: "starting a thread", source })?);
        Ok(())
    }
}
