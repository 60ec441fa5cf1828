//! A running switch: started, told and asked from other threads.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_abi::soc::Sizes;
use culvert_flow::Port;
use culvert_packet::VportId;
use culvert_pf::{Error, PortCounters, Result};

use super::bell::Bell;
use super::events::events;
use super::forwarder::Forwarder;
use super::settings::SwitchSettings;
use super::slot::{Opener, Slot};
use super::team::{Placement, Team};
use super::worker::{Job, Worker};
use crate::target::{EventSource, PacketSource};

/// What it is called in messages.
pub(super) const NAME: &str = "the software NIC";
/// How long an answer may take: bursts take microseconds, jobs milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// Jobs that may wait at a time.
const JOBS: usize = 1024;

/// The software NIC. Its threads end when it is dropped.
pub struct Switch {
    hands: Vec<Hand>,
    placement: Mutex<Placement>,
    sizes: Sizes,
    exceptions: Mutex<Option<Box<dyn PacketSource>>>,
    events: Mutex<Option<Box<dyn EventSource>>>,
}

/// A worker, as others see it.
struct Hand {
    jobs: Option<SyncSender<Job>>,
    wake: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

/// What a worker has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Vports whose ports it serves.
    pub vports: usize,
    /// How long there has been something to do since it was started.
    pub busy: Duration,
}

impl Switch {
    /// Starts it, without any ports.
    ///
    /// # Errors
    /// There is not so much memory, or no thread, descriptor or processor to be had.
    ///
    /// # Panics
    /// There are no workers, or more than [`SwitchSettings::MAX_WORKERS`].
    pub fn start(settings: &SwitchSettings) -> Result<Self> {
        let (team, source) = Team::new(settings)?;
        let (reporters, events) = events(settings.workers.len())?;
        // Time is the same for all.
        let base = Instant::now();
        let mut hands = Vec::new();
        let parts = team.forwarders.into_iter().zip(team.bells).zip(reporters).zip(&settings.workers);
        for (n, (((forwarder, wake), reporter), core)) in parts.enumerate() {
            let (jobs, told) = sync_channel(JOBS);
            let worker = Worker::new(forwarder, told, Arc::clone(&wake), reporter, base);
            let core = *core;
            let (done, pinned) = channel();
            let failed = |source| Error::System { what: "a thread of the data path", source };
            let thread = std::thread::Builder::new()
                .name(format!("switch-{n}"))
                .spawn(move || {
                    let result = core.map_or(Ok(()), pin);
                    let goes_on = result.is_ok();
                    // Whoever has started it waits for this.
                    let _ = done.send(result);
                    if goes_on {
                        worker.run();
                    }
                })
                .map_err(failed)?;
            pinned.recv_timeout(LIMIT).unwrap_or_else(|e| Err(io::Error::other(e))).map_err(failed)?;
            hands.push(Hand { jobs: Some(jobs), wake, thread: Some(thread) });
        }
        Ok(Switch {
            hands,
            placement: Mutex::new(team.placement),
            sizes: settings.sizes,
            exceptions: Mutex::new(Some(source)),
            events: Mutex::new(Some(Box::new(events))),
        })
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.hands.len()
    }

    pub(super) fn placement(&self) -> MutexGuard<'_, Placement> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a port into place, where another may have been, at the worker that has the fewest. It is opened on the
    /// worker's thread, again and again until it opens, and anew when it breaks. When it returns, all workers know the way
    /// there.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn attach(&self, at: Port, open: Opener) -> Result<()> {
        // Held until all have been told: nobody else's news of homes comes between.
        let mut placement = self.placement();
        let (home, homes) = (placement.place(at), placement.homes.clone());
        // If another worker had the port before, it is closed there before it is opened here.
        self.ask_all(move |f, n| {
            f.set_homes(homes.clone());
            if n != home {
                f.lead(at, home as u8);
            }
        })?;
        self.tell(home, move |f| f.attach(at, open))
    }

    /// Puts a port into place of which each worker has an end of its own: `open` makes the opener for worker number so and
    /// so.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn attach_to_all(&self, at: Port, open: impl Fn(usize) -> Opener) -> Result<()> {
        self.detach(at)?;
        for n in 0..self.workers() {
            let open = open(n);
            self.tell(n, move |f| f.attach(at, open))?;
        }
        Ok(())
    }

    /// Takes a port away. When it returns, the port is closed.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn detach(&self, at: Port) -> Result<()> {
        self.placement().leave(at);
        self.ask_all(move |f, _| f.detach(at)).map(drop)
    }

    /// The ports that are in place: whether there is a link, and what passed.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn ports(&self) -> Result<Vec<(Port, bool, PortCounters)>> {
        let all = self.ask_all(|f, _| {
            f.slots.iter_mut().for_each(Slot::look);
            f.slots.iter().map(|slot| (slot.at, slot.link, slot.counters)).collect::<Vec<_>>()
        })?;
        let mut ports: Vec<(Port, bool, PortCounters)> = Vec::new();
        for (at, link, counters) in all.into_iter().flatten() {
            match ports.iter_mut().find(|(port, ..)| *port == at) {
                Some((_, up, sum)) => {
                    *up |= link;
                    add(sum, &counters);
                }
                None => ports.push((at, link, counters)),
            }
        }
        Ok(ports)
    }

    /// The worker that serves a vport, if it has a port.
    pub fn worker_of(&self, vport: VportId) -> Option<usize> {
        self.placement().worker_of(vport)
    }

    /// What each worker has to do.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn loads(&self) -> Result<Vec<Load>> {
        self.ask_all(|f, _| {
            let vports = f.slots.iter().filter(|slot| matches!(slot.at, Port::Vport(_))).count();
            Load { vports, busy: f.busy }
        })
    }

    /// Buffers that are free, of those that there are: all of them when nothing is under way.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn free_buffers(&self) -> Result<(usize, usize)> {
        let all = self.ask_all(|f, _| {
            f.pool.take_back();
            (f.pool.free(), f.pool.count() as usize)
        })?;
        Ok(all.into_iter().fold((0, 0), |(free, count), (f, c)| (free + f, count + c)))
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

    /// Has something done by a worker between two bursts, in the order in which it is told.
    pub(super) fn tell(
        &self,
        worker: usize,
        job: impl FnOnce(&mut Forwarder) + Send + 'static,
    ) -> Result<()> {
        let hand = self.hands.get(worker);
        let sent = hand.and_then(|hand| Some((hand, hand.jobs.as_ref()?.send(Box::new(job)))));
        match sent {
            Some((hand, Ok(()))) => hand.wake.ring(),
            _ => Err(Error::FirmwareDead { device: NAME.into() }),
        }
    }

    /// Has something done by a worker between two bursts. The answer is to be waited for.
    fn question<T: Send + 'static>(
        &self,
        worker: usize,
        job: impl FnOnce(&mut Forwarder) -> T + Send + 'static,
    ) -> Result<Receiver<T>> {
        let (sender, answer) = channel();
        self.tell(worker, move |f| {
            // Whoever asked may have gone.
            let _ = sender.send(job(f));
        })?;
        Ok(answer)
    }

    /// Has something done by a worker between two bursts, and waits for it.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        worker: usize,
        job: impl FnOnce(&mut Forwarder) -> T + Send + 'static,
    ) -> Result<T> {
        wait(&self.question(worker, job)?)
    }

    /// Has something done by all workers, each between two bursts of its own, and waits for it. The job gets to know whose
    /// it is; answers come by worker.
    pub(super) fn ask_all<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Forwarder, usize) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let ask = |n| {
            let job = job.clone();
            self.question(n, move |f| job(f, n))
        };
        let answers: Vec<Receiver<T>> = (0..self.workers()).map(ask).collect::<Result<_>>()?;
        answers.iter().map(wait).collect()
    }
}

fn wait<T>(answer: &Receiver<T>) -> Result<T> {
    answer.recv_timeout(LIMIT).map_err(|_| Error::Timeout {
        device: NAME.into(),
        what: "a question".into(),
        limit: LIMIT,
    })
}

/// Counts what has passed at one end of a port to the others.
pub(super) fn add(sum: &mut PortCounters, more: &PortCounters) {
    sum.in_packets += more.in_packets;
    sum.in_bytes += more.in_bytes;
    sum.out_packets += more.out_packets;
    sum.out_bytes += more.out_bytes;
    sum.drops += more.drops;
}

impl Drop for Switch {
    fn drop(&mut self) {
        for hand in &mut self.hands {
            hand.jobs = None;
            // The thread looks ten times a second even if it cannot be woken.
            let _ = hand.wake.ring();
        }
        for hand in &mut self.hands {
            if let Some(thread) = hand.thread.take() {
                // A thread that has panicked has said so.
                let _ = thread.join();
            }
        }
    }
}

/// Keeps this thread on a processor.
fn pin(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if core < rustix::thread::CpuSet::MAX_CPU {
        set.set(core);
    }
    rustix::thread::sched_setaffinity(None, &set).map_err(|error| {
        let why = format!("{error}; /sys/devices/system/cpu/online says which there are");
        io::Error::new(io::Error::from(error).kind(), format!("processor {core}: {why}"))
    })
}
