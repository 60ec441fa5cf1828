//! `Place`: what the handle of a NIC's place and its thread share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use culvert_flow::tables::Vport;
use culvert_offload::{NicCounters, PortCounters};
use culvert_packet::{MacAddr, Reason};
use culvert_pci::{Device, VfHandle};

use super::counters::{self, CarriedCounters};
use crate::bring_up::Config;
use crate::event::{Events, Reporter, events};
use crate::firmware::FirmwareInfo;
use crate::identity::Identity;
use crate::nic::Nic;
use crate::shared::Observed;
use crate::sync::lock;
use crate::{Error, Result};

/// A board that takes this long to answer is slow.
const SLOW: Duration = Duration::from_millis(300);

/// Opens the function of the NIC.
pub type Opener = Box<dyn Fn() -> culvert_pci::Result<Box<dyn Device>> + Send>;

/// Where a place is in the life of its NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicState {
    /// Nothing can be opened.
    Absent,
    /// The NIC is brought up.
    BringingUp,
    /// The NIC is there.
    Running,
    /// The bring-up failed and is tried again later.
    Failed,
    /// The NIC has ended.
    Lost,
}

/// What is known of the NIC, without an access to it.
#[derive(Clone, Debug)]
pub struct NicStatus {
    /// The state.
    pub state: NicState,
    /// How long it has been that.
    pub since: Duration,
    /// What is wrong; none: the NIC takes commands.
    pub problem: Option<String>,
    /// Identity, as last known.
    pub identity: Option<Identity>,
    /// Version, sizes and configuration of the firmware, as last known.
    pub firmware: FirmwareInfo,
    /// State of firmware and links, as last seen.
    pub observed: Observed,
    /// The VFs, as last enabled.
    pub vfs: Vec<VfHandle>,
    /// Whether the firmware takes commands.
    pub alive: bool,
}

/// What stays known of a NIC that is gone.
#[derive(Default)]
pub(super) struct Known {
    pub(super) identity: Option<Identity>,
    pub(super) firmware: FirmwareInfo,
    pub(super) observed: Observed,
    pub(super) vfs: Vec<VfHandle>,
}

/// State, since when, and why.
pub(super) struct Progress {
    pub(super) state: NicState,
    pub(super) since: Instant,
    pub(super) why: String,
}

/// What the handle shares with its thread.
pub(super) struct Place {
    pub(super) location: String,
    pub(super) current: RwLock<Option<Arc<Nic>>>,
    /// Number of NICs that were in the place.
    pub(super) generation: AtomicU64,
    pub(super) known: Mutex<Known>,
    pub(super) progress: Mutex<Progress>,
    pub(super) counters: Mutex<CarriedCounters>,
    pub(super) config: Mutex<Config>,
    pub(super) vfs: u16,
    pub(super) reporter: Reporter,
    pub(super) events: Mutex<Option<Events>>,
    pub(super) has_upcalls: AtomicBool,
    pub(super) stop: Mutex<bool>,
    pub(super) stopped: Condvar,
}

impl Place {
    /// An empty place.
    pub(super) fn new(location: &str, config: Config, vfs: u16) -> Result<Self> {
        let (reporter, events) = events()?;
        Ok(Place {
            location: location.into(),
            current: RwLock::default(),
            generation: AtomicU64::new(0),
            known: Mutex::default(),
            progress: Mutex::new(Progress {
                state: NicState::Absent,
                since: Instant::now(),
                why: String::new(),
            }),
            counters: Mutex::default(),
            config: Mutex::new(config),
            vfs,
            reporter,
            events: Mutex::new(Some(events)),
            has_upcalls: AtomicBool::new(true),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        })
    }

    /// Reads all counters of a NIC.
    pub(super) fn read_all(&self, nic: &Nic) -> Result<()> {
        self.read_vports(nic)?;
        self.read_counters(nic)?;
        self.read_drops(nic).map(|_| ())
    }

    pub(super) fn read_vports(&self, nic: &Nic) -> Result<Vec<Vport>> {
        counters::read_vports(&self.counters, self.generation(), nic)
    }

    pub(super) fn read_counters(&self, nic: &Nic) -> Result<NicCounters> {
        counters::read_counters(&self.counters, self.generation(), nic)
    }

    pub(super) fn read_vf(&self, nic: &Nic, vf: u16) -> Result<PortCounters> {
        counters::read_vf(&self.counters, self.generation(), nic, vf)
    }

    pub(super) fn read_drops(&self, nic: &Nic) -> Result<Vec<(Reason, u64)>> {
        counters::read_drops(&self.counters, self.generation(), nic)
    }

    /// The NIC that is there.
    pub(super) fn nic(&self) -> Result<Arc<Nic>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let nic = current.as_ref().filter(|nic| !nic.is_lost()).cloned();
        nic.ok_or_else(|| Error::Absent {
            device: self.location.clone(),
            problem: lock(&self.progress).why.clone(),
        })
    }

    /// Whether there is a NIC, even if it is lost.
    pub(super) fn is_occupied(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, state: NicState, why: impl Into<String>) {
        let mut progress = lock(&self.progress);
        let why = why.into();
        if progress.state != state {
            *progress = Progress { state, since: Instant::now(), why };
        } else {
            progress.why = why;
        }
    }

    /// Puts a NIC into the place.
    pub(super) fn put(&self, nic: Nic) {
        self.note(&nic);
        // Who sees the NIC sees its number, too.
        self.generation.fetch_add(1, Ordering::AcqRel);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(nic));
        self.set(NicState::Running, "");
    }

    /// Remembers what is known of a NIC.
    pub(super) fn note(&self, nic: &Nic) {
        let mut known = lock(&self.known);
        known.identity = Some(nic.identity().clone());
        known.firmware = nic.firmware();
        known.observed = nic.observed();
    }

    pub(super) fn router_mac(&self) -> MacAddr {
        match self.nic() {
            Ok(nic) => nic.router_mac(),
            Err(_) => lock(&self.config).router_mac,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.nic().is_ok_and(|nic| nic.alive())
    }

    pub(super) fn status(&self) -> NicStatus {
        let nic = self.nic();
        if let Ok(nic) = &nic {
            self.note(nic);
        }
        let alive = nic.as_ref().is_ok_and(|nic| nic.alive());
        let (state, since) = {
            let progress = lock(&self.progress);
            (progress.state, progress.since.elapsed())
        };
        let known = lock(&self.known);
        let problem = match (&nic, known.observed.delay) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(nic), _) if !alive => Some(match nic.trouble() {
                why if why.is_empty() => format!("{}: the firmware does not answer", self.location),
                why => format!("{}: {why}: it is used again when it answers", self.location),
            }),
            (Ok(_), delay) if delay >= SLOW => Some(format!(
                "{}: its board is slow: it took {} ms to answer",
                self.location,
                delay.as_millis()
            )),
            (Ok(_), _) => None,
        };
        NicStatus {
            state,
            since,
            problem,
            identity: known.identity.clone(),
            firmware: known.firmware,
            observed: known.observed,
            vfs: known.vfs.clone(),
            alive,
        }
    }

    /// Waits for this time. `true`: the place is given up.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let stop = lock(&self.stop);
        let waited = self.stopped.wait_timeout_while(stop, time, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
