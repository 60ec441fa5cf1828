//! `AttachedNic`: the place of a NIC that may die, be removed and come back.
//!
//! A thread of its own opens the NIC, watches it, and opens it again when it is lost; the rest of the host drives whatever
//! is in the place through one handle, and gets errors while there is nothing. The states:
//!
//! | state | what is there | next |
//! | --- | --- | --- |
//! | absent | nothing that can be opened | bringing up, when it can |
//! | bringing up | an open function whose firmware is loaded, configured, given its VFs | running; failed |
//! | running | a NIC that takes commands, or whose firmware or board is silent for now | lost |
//! | failed | a function that cannot be brought up; another attempt comes, each after twice the time | bringing up; absent |
//! | lost | a NIC that ended, whose users let go of it | absent |
//!
//! A NIC that comes back is empty: [`FirmwareReady`](culvert_offload::Event::FirmwareReady) asks the owner for its tables,
//! as after a restart of the firmware. Counters go on from where they were last read, once a second.

mod attempt;
mod counters;
mod offload;
mod queues;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_packet::MacAddr;
use culvert_pci::{Device, VfHandle};

use self::attempt::Attempt;
use self::counters::CarriedCounters;
use crate::bring_up::Config;
use crate::event::{Events, Reporter, events};
use crate::firmware::FirmwareInfo;
use crate::identity::Identity;
use crate::nic::Nic;
use crate::shared::Observed;
use crate::sync::lock;
use crate::{Error, Result};

/// How long the end of the thread is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(1);
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
struct Known {
    identity: Option<Identity>,
    firmware: FirmwareInfo,
    observed: Observed,
    vfs: Vec<VfHandle>,
}

/// State, since when, and why.
struct Progress {
    state: NicState,
    since: Instant,
    why: String,
}

/// What the handle shares with its thread.
struct Place {
    location: String,
    current: RwLock<Option<Arc<Nic>>>,
    /// Number of NICs that were in the place.
    generation: AtomicU64,
    known: Mutex<Known>,
    progress: Mutex<Progress>,
    counters: Mutex<CarriedCounters>,
    config: Mutex<Config>,
    vfs: u16,
    reporter: Reporter,
    events: Mutex<Option<Events>>,
    has_upcalls: AtomicBool,
    stop: Mutex<bool>,
    stopped: Condvar,
}

/// The place of a NIC. Its thread ends when it is dropped; the NIC keeps forwarding.
pub struct AttachedNic {
    place: Arc<Place>,
    thread: Option<JoinHandle<()>>,
}

impl AttachedNic {
    /// Opens the NIC at `location` and enables up to `vfs` VFs. If it is absent or does not come up, this goes on in the
    /// background.
    ///
    /// # Errors
    /// No later attempt can succeed, or the system has no descriptors or threads.
    pub fn start(location: &str, open: Opener, config: Config, vfs: u16) -> Result<Self> {
        let (reporter, events) = events()?;
        let place = Arc::new(Place {
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
        });
        let mut attempt = Attempt::new(place.clone(), open);
        match attempt.bring_up() {
            Ok(nic) => place.put(nic),
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => attempt.failed(&error),
        }
        let thread = culvert_threads::spawn("nic-attach", move || attempt.run());
        let thread = thread.map_err(|source| Error::System { what: "starting a thread", source })?;
        Ok(AttachedNic { place, thread: Some(thread) })
    }

    /// What is known of the NIC. Makes no access to it.
    pub fn status(&self) -> NicStatus {
        self.place.status()
    }

    /// Number of VFs that a NIC gets which was never seen: as many as are wanted.
    pub fn planned_vfs(&self) -> u16 {
        self.place.vfs
    }

    /// Whether a guest's driver runs VF `vf`.
    ///
    /// # Errors
    /// The NIC is absent, or its board or firmware does not answer.
    pub fn vf_is_driven(&self, vf: u16) -> Result<bool> {
        let nic = self.place.nic()?;
        if !nic.alive() {
            return Err(Error::FirmwareDead { device: self.place.location.clone() });
        }
        nic.vf_is_driven(vf)
    }

    /// Frames of VF `vf` that messages to its VMM have carried, because the VM's memory is not shared.
    ///
    /// # Errors
    /// The NIC is absent, or its board does not answer.
    pub fn vf_frames_by_message(&self, vf: u16) -> Result<u64> {
        self.place.nic()?.vf_frames_by_message(vf)
    }
}

impl Drop for AttachedNic {
    fn drop(&mut self) {
        *lock(&self.place.stop) = true;
        self.place.stopped.notify_all();
        // A thread that waits for a board that hangs is left behind.
        let end = Instant::now() + STOP_LIMIT;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Place {
    /// The NIC that is there.
    fn nic(&self) -> Result<Arc<Nic>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let nic = current.as_ref().filter(|nic| !nic.is_lost()).cloned();
        nic.ok_or_else(|| Error::Absent {
            device: self.location.clone(),
            problem: lock(&self.progress).why.clone(),
        })
    }

    /// Whether there is a NIC, even if it is lost.
    fn is_occupied(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn set(&self, state: NicState, why: impl Into<String>) {
        let mut progress = lock(&self.progress);
        let why = why.into();
        if progress.state != state {
            *progress = Progress { state, since: Instant::now(), why };
        } else {
            progress.why = why;
        }
    }

    /// Puts a NIC into the place.
    fn put(&self, nic: Nic) {
        self.note(&nic);
        // Who sees the NIC sees its number, too.
        self.generation.fetch_add(1, Ordering::AcqRel);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(nic));
        self.set(NicState::Running, "");
    }

    /// Remembers what is known of a NIC.
    fn note(&self, nic: &Nic) {
        let mut known = lock(&self.known);
        known.identity = Some(nic.identity().clone());
        known.firmware = nic.firmware();
        known.observed = nic.observed();
    }

    fn router_mac(&self) -> MacAddr {
        match self.nic() {
            Ok(nic) => nic.router_mac(),
            Err(_) => lock(&self.config).router_mac,
        }
    }

    fn is_alive(&self) -> bool {
        self.nic().is_ok_and(|nic| nic.alive())
    }

    fn status(&self) -> NicStatus {
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
    fn wait(&self, time: Duration) -> bool {
        let stop = lock(&self.stop);
        let waited = self.stopped.wait_timeout_while(stop, time, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
