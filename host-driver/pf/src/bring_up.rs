//! Bring-up: turns an opened PCI function into a NIC that takes commands.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};

use culvert_abi::command::Op;
use culvert_abi::regs::{FirmwareState, QUEUE_COMMAND, QUEUE_COMPLETION, QUEUE_UPCALL};
use culvert_packet::MacAddr;
use culvert_pci::Device;

use crate::completion::Completions;
use crate::event::{Events, Reporter, events};
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
        let (reporter, events) = events()?;
        Self::bring_up(Arc::from(device), config, reporter, Some(events))
    }

    /// As [`Nic::open`]; events go to `reporter`.
    pub(crate) fn bring_up(
        device: Arc<dyn Device>,
        config: &Config,
        reporter: Reporter,
        events: Option<Events>,
    ) -> Result<Nic> {
        let bar = Arc::new(Bar0::new(device.bar(0)?));
        let identity = Identity::read(&*device, &bar)?;
        let found = firmware::status(&bar)?;
        let mut runs = match found.state {
            FirmwareState::Off | FirmwareState::Refused => false,
            // If it is dead, the board restarts it.
            _ => firmware::wait_ready(device.name(), &bar).is_ok(),
        };
        if !runs {
            firmware::load(&*device, &bar, &config.image)?;
        }
        let info = match mailbox::hello(&bar, device.name()) {
            // It beats, but does not answer: it is replaced.
            Err(e) if e.is_unanswered() && runs && !config.image.is_empty() => {
                runs = false;
                firmware::load(&*device, &bar, &config.image)?;
                mailbox::hello(&bar, device.name())?
            }
            other => other?,
        };

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
            observed: Mutex::default(),
            trouble: Mutex::default(),
            alive: AtomicBool::new(true),
            lost: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let watchdog = Watchdog::new(shared.clone(), reporter, events.is_none())?;
        let mut nic = Nic {
            shared: shared.clone(),
            upcalls: Mutex::new(Some(upcalls)),
            events: Mutex::new(events),
            adopted: false,
            threads: Vec::new(),
        };
        let server = shared.clone();
        nic.spawn("nic-completions", move || server.completions.run(completions, &server.stop))?;
        let mut adopted = shared.adopt_or_configure(runs);
        if runs && !config.image.is_empty() && adopted.as_ref().is_err_and(Error::is_unanswered) {
            firmware::load(&*shared.device, &shared.bar, &config.image)?;
            shared
                .set_alive(mailbox::hello(&shared.bar, shared.name())?, firmware::status(&shared.bar)?.epoch);
            adopted = shared.adopt_or_configure(false);
        }
        nic.adopted = adopted?;
        nic.spawn("nic-watchdog", move || watchdog.run())?;
        Ok(nic)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = culvert_threads::spawn(name, run);
        self.threads.push(thread.map_err(|source| Error::System { what: "starting a thread", source })?);
        Ok(())
    }
}

impl Shared {
    /// Adopts firmware that has tables, or configures it. Returns whether it was adopted. Firmware that this driver has just
    /// started (`runs` is false) has none.
    fn adopt_or_configure(&self, runs: bool) -> Result<bool> {
        let adopted = runs && self.has_vports()?;
        if adopted {
            // A CONFIGURE with another MAC would empty the flow table.
            let router_mac = lock(&self.info).router_mac;
            lock(&self.settings).router_mac = router_mac;
            self.command(Op::HostRestart, 0, 0, &[])?;
        } else {
            self.configure()?;
        }
        Ok(adopted)
    }
}
