//! Bring-up: turns an opened PCI function into a NIC that takes commands.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use culvert_abi::command::Op;
use culvert_abi::regs::{FirmwareState, QUEUE_COMMAND, QUEUE_COMPLETION, QUEUE_UPCALL};
use culvert_packet::MacAddr;
use culvert_pci::Device;

use crate::completion::Completions;
use crate::event::events;
use crate::identity::Identity;
use crate::nic::Nic;
use crate::queue::{RxQueue, command_queue};
use crate::registers::Bar0;
use crate::shared::{Settings, Shared};
use crate::sync::lock;
use crate::watchdog::Watchdog;
use crate::{Error, Result, firmware, mailbox};

/// Entries of queue 0 and of the upcall queue, as a power of two.
const RING_LOG2: u32 = 10;
/// Entries of the completion queue, as a power of two: one for each command in queue 0.
const COMPLETION_LOG2: u32 = 10;

/// Configuration of a NIC's bring-up.
#[derive(Clone)]
pub struct Config {
    /// The firmware image. Not needed to adopt a running NIC.
    pub image: Vec<u8>,
    /// Secret of the flow hash.
    pub secret: [u64; 9],
    /// The distributed router's MAC.
    pub router_mac: MacAddr,
}

impl Config {
    /// A configuration with a random secret.
    ///
    /// # Errors
    /// The system's random numbers cannot be read.
    pub fn new(image: Vec<u8>, router_mac: MacAddr) -> Result<Self> {
        Ok(Config { image, secret: random_secret()?, router_mac })
    }
}

fn random_secret() -> Result<[u64; 9]> {
    use std::io::Read;
    let mut bytes = [0; 72];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .map_err(|source| Error::System { what: "reading /dev/urandom", source })?;
    Ok(std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| bytes[8 * i + j]))))
}

impl Nic {
    /// Brings up the NIC behind a function, or adopts it if it runs. Packets flow after [`Nic::start`].
    ///
    /// # Errors
    /// The function is no Culvert PF, versions differ, the board refuses the image, or the firmware does not answer.
    pub fn open(device: Box<dyn Device>, config: &Config) -> Result<Nic> {
        let device: Arc<dyn Device> = Arc::from(device);
        let bar = Arc::new(Bar0::new(device.bar(0)?));
        let identity = Identity::read(&*device, &bar)?;
        let found = firmware::status(&bar)?;
        let runs = match found.state {
            FirmwareState::Off | FirmwareState::Refused => false,
            // If it is dead, the board restarts it.
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
            settings: Mutex::new(Settings { secret: config.secret, router_mac: config.router_mac }),
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
        nic.spawn("nic-completions", move || server.completions.run(completions, &server.stop))?;
        nic.adopted = runs && shared.has_vports()?;
        if nic.adopted {
            // A CONFIGURE with another MAC would empty the flow table.
            lock(&shared.settings).router_mac = info.router_mac;
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
