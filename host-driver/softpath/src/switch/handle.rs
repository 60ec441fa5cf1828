//! A running switch: started, told and asked from other threads.

use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_abi::soc::Sizes;
use culvert_flow::{HashSecret, Port};
use culvert_nic::{Error, PortCounters, Result};

use super::bell::Bell;
use super::events::events;
use super::exceptions::LENGTH as QUEUE;
use super::forwarder::Forwarder;
use super::slot::{Opener, Slot};
use super::worker::{Job, Worker};
use crate::target::{EventSource, PacketSource};

/// What it is called in messages.
pub(super) const NAME: &str = "the software NIC";
/// How long an answer may take: bursts take microseconds, jobs milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// Jobs that may wait at a time.
const JOBS: usize = 1024;

/// What a switch is started with.
#[derive(Clone, Copy, Debug)]
pub struct SwitchSettings {
    /// Entries of its tables.
    pub sizes: Sizes,
    /// Packet buffers of 2 KiB.
    pub buffers: usize,
    /// Packet buffers of 64 KiB, for frames that are yet to be segmented.
    pub large_buffers: usize,
    /// Secret of the flow hash.
    pub secret: HashSecret,
    /// The processor that its thread stays on; none: the system chooses.
    pub core: Option<usize>,
}

impl SwitchSettings {
    /// For so many flow records, a power of two, with 64 MiB for packets.
    pub fn new(flows: u32, secret: HashSecret) -> Self {
        // As many flows may be undecided as there is room for packets on their way to the slow path.
        let sizes = Sizes { flows, pending: QUEUE as u32, ..Sizes::new(0) };
        SwitchSettings { sizes, buffers: 16_384, large_buffers: 512, secret, core: None }
    }
}

/// The software NIC. Its thread ends when it is dropped.
pub struct Switch {
    jobs: Option<SyncSender<Job>>,
    wake: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
    sizes: Sizes,
    exceptions: Mutex<Option<Box<dyn PacketSource>>>,
    events: Mutex<Option<Box<dyn EventSource>>>,
}

impl Switch {
    /// Starts it, without any ports.
    ///
    /// # Errors
    /// There is not so much memory, or no thread or descriptor to be had.
    pub fn start(settings: &SwitchSettings) -> Result<Self> {
        let (forwarder, source) = Forwarder::new(settings)?;
        let (reporter, events) = events()?;
        let (jobs, told) = sync_channel(JOBS);
        let wake = Arc::new(Bell::new()?);
        let (worker, core) = (Worker::new(forwarder, told, Arc::clone(&wake), reporter), settings.core);
        let thread = std::thread::Builder::new()
            .name("switch".into())
            .spawn(move || {
                if let Some(core) = core {
                    pin(core);
                }
                worker.run();
            })
            .map_err(|source| Error::System { what: "the data path's thread", source })?;
        Ok(Switch {
            jobs: Some(jobs),
            wake,
            thread: Some(thread),
            sizes: settings.sizes,
            exceptions: Mutex::new(Some(source)),
            events: Mutex::new(Some(Box::new(events))),
        })
    }

    /// Puts a port into place, where another may have been. It is opened on the data path's thread, again and again
    /// until it opens, and anew when it breaks.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn attach(&self, at: Port, open: Opener) -> Result<()> {
        self.tell(move |f| f.attach(at, open))
    }

    /// Takes a port away. When it returns, the port is closed.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn detach(&self, at: Port) -> Result<()> {
        self.ask(move |f| f.detach(at))
    }

    /// The ports that are in place: whether there is a link, and what passed.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn ports(&self) -> Result<Vec<(Port, bool, PortCounters)>> {
        self.ask(|f| {
            f.slots.iter_mut().for_each(Slot::look);
            f.slots.iter().map(|slot| (slot.at, slot.link, slot.counters)).collect()
        })
    }

    /// Buffers that are free, of those that there are: all of them when nothing is under way.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn free_buffers(&self) -> Result<(usize, usize)> {
        self.ask(|f| (f.pool.free(), f.pool.count() as usize))
    }

    pub(super) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(super) fn take_exceptions(&self) -> Option<Box<dyn PacketSource>> {
        self.exceptions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn take_events(&self) -> Option<Box<dyn EventSource>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Has something done between two bursts, in the order in which it is told.
    pub(super) fn tell(&self, job: impl FnOnce(&mut Forwarder) + Send + 'static) -> Result<()> {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(Box::new(job)));
        match sent {
            Some(Ok(())) => self.wake.ring(),
            _ => Err(Error::FirmwareDead { device: NAME.into() }),
        }
    }

    /// Has something done between two bursts, and waits for it.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Forwarder) -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = channel();
        self.tell(move |f| {
            // Whoever asked may have gone.
            let _ = sender.send(job(f));
        })?;
        answer.recv_timeout(LIMIT).map_err(|_| Error::Timeout {
            device: NAME.into(),
            what: "a question".into(),
            limit: LIMIT,
        })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.jobs = None;
        // The thread looks ten times a second even if it cannot be woken.
        let _ = self.wake.ring();
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    if core < rustix::thread::CpuSet::MAX_CPU {
        set.set(core);
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(core, %error, "the data path's thread is not pinned");
    }
}
