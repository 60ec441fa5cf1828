//! A running switch: its worker threads, and how other threads use them.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_flow::{Port, TableSizes};
use culvert_offload::{Error, EventQueue, PortCounters, Result, UpcallQueue};
use culvert_packet::VportId;

use crate::attached_port::AttachedPort;
use crate::events::events;
use crate::forwarder::Forwarder;
use crate::notifier::Notifier;
use crate::placement::Placement;
use crate::poll_loop::{self, PollLoop as _};
use crate::port::Opener;
use crate::port_control::PortControl;
use crate::settings::SwitchSettings;
use crate::worker::{Job, Worker};
use crate::worker_set::WorkerSet;

/// The switch's name in messages.
pub(super) const NAME: &str = "the switch";
/// How long an answer may take: bursts take microseconds, jobs milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// Jobs that may wait for a worker.
const JOBS: usize = 1024;
/// Interval in which a wait for ports looks.
const POLL: Duration = Duration::from_millis(2);

/// A software switch. Its threads end when it is dropped.
pub struct Switch {
    workers: Vec<WorkerHandle>,
    placement: Mutex<Placement>,
    sizes: TableSizes,
    /// Behind the highest number of a vport that was ever written.
    vports_end: AtomicU16,
    upcalls: Mutex<Option<Box<dyn UpcallQueue>>>,
    events: Mutex<Option<Box<dyn EventQueue>>>,
    /// Opens and closes the workers' ports. Ends after the workers.
    _port_control: Option<PortControl>,
}

/// How a worker is reached.
enum WorkerHandle {
    /// It runs in a thread of its own.
    Thread { jobs: Option<SyncSender<Job>>, notifier: Arc<Notifier>, thread: Option<JoinHandle<()>> },
    /// It runs in the threads that call the switch.
    Inline(Box<Mutex<Worker>>),
}

/// The load of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Vports whose ports it serves.
    pub vports: usize,
    /// For how long there was work since it started.
    pub busy: Duration,
}

impl Switch {
    /// Starts a switch without any ports.
    ///
    /// # Errors
    /// Out of memory, threads or file descriptors, or a processor does not exist.
    ///
    /// # Panics
    /// The settings have no worker, or more than [`SwitchSettings::MAX_WORKERS`].
    pub fn start(settings: &SwitchSettings) -> Result<Self> {
        Self::with(settings, Some(PortControl::start()?), WorkerHandle::start)
    }

    /// Creates a switch without threads and without any ports: every call does its work at once, and packets are forwarded
    /// when [`poll`](Self::poll) is called.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn inline(settings: &SwitchSettings) -> Result<Self> {
        Self::with(settings, None, |_, worker, _, _| Ok(WorkerHandle::Inline(Box::new(Mutex::new(worker)))))
    }

    fn with(
        settings: &SwitchSettings,
        port_control: Option<PortControl>,
        start: impl Fn(usize, Worker, Arc<Notifier>, Option<usize>) -> Result<WorkerHandle>,
    ) -> Result<Self> {
        let (set, upcalls) = WorkerSet::new(settings)?;
        let (reporters, events) = events(settings.workers.len())?;
        let base = Instant::now();
        let mut workers = Vec::new();
        let parts = set.forwarders.into_iter().zip(set.notifiers).zip(reporters).zip(&settings.workers);
        for (n, (((mut forwarder, notifier), links), core)) in parts.enumerate() {
            if let Some(control) = &port_control {
                forwarder.out.ports.set_control(control.tx(&notifier));
            }
            workers.push(start(n, Worker::new(forwarder, links, base), notifier, *core)?);
        }
        Ok(Switch {
            workers,
            placement: Mutex::new(set.placement),
            sizes: settings.sizes,
            vports_end: AtomicU16::new(0),
            upcalls: Mutex::new(Some(upcalls)),
            events: Mutex::new(Some(Box::new(events))),
            _port_control: port_control,
        })
    }

    /// Forwards what has arrived at the ports of a switch without threads, `now` being the time in milliseconds, wrapping.
    /// `true`: there was a packet. A switch with threads does so by itself.
    pub fn poll(&self, now: u32) -> bool {
        let mut any = false;
        for worker in &self.workers {
            if let WorkerHandle::Inline(worker) = worker {
                let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                worker.forwarder().now = now;
                any |= worker.round();
            }
        }
        any
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn placement(&self) -> MutexGuard<'_, Placement> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a port, in place of the one with this name, at the worker that serves the fewest. It is opened
    /// in the background, again and again until it opens, and reopened when it breaks. When this returns, all workers know where the port
    /// is.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn attach(&self, at: Port, open: Opener) -> Result<()> {
        // Held until all workers know, so that steering updates reach them in order.
        let mut placement = self.placement();
        let (worker, steering) = (placement.place(at), placement.steering.clone());
        // If another worker served the port before, it has it closed before this one has it opened.
        self.ask_all(move |f, n| {
            f.out.set_steering(steering.clone());
            if n != worker {
                f.set_remote(at, worker as u8);
            }
        })?;
        self.tell(worker, move |f| f.attach(at, open))
    }

    /// Attaches a port that each worker serves by itself: `open` makes the opener for a worker's number.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn attach_to_all(&self, at: Port, open: impl Fn(usize) -> Opener) -> Result<()> {
        self.detach(at)?;
        for n in 0..self.workers() {
            let open = open(n);
            self.tell(n, move |f| f.attach(at, open))?;
        }
        Ok(())
    }

    /// Waits until no attached port is being opened, for a limited time. A port that does not open is tried again in the
    /// background and not waited for.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn wait_opened(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        let is_opening = |f: &mut Forwarder, _| f.out.ports.local().iter().any(AttachedPort::is_opening);
        while self.ask_all(is_opening)?.contains(&true) && Instant::now() < end {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Detaches a port. When this returns, nothing passes it any more; it is closed in the background, before another port of
    /// this name opens.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn detach(&self, at: Port) -> Result<()> {
        self.placement().remove(at);
        self.ask_all(move |f, _| f.detach(at)).map(drop)
    }

    /// The attached ports with their links and counters.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn ports(&self) -> Result<Vec<(Port, bool, PortCounters)>> {
        let all = self.ask_all(|f, _| {
            f.out.ports.local_mut().iter_mut().for_each(AttachedPort::poll_link);
            f.out.ports.local().iter().map(|port| (port.at(), port.link(), port.counters)).collect::<Vec<_>>()
        })?;
        let mut ports: Vec<(Port, bool, PortCounters)> = Vec::new();
        for (at, link, counters) in all.into_iter().flatten() {
            match ports.iter_mut().find(|(port, ..)| *port == at) {
                Some((_, up, sum)) => {
                    *up |= link;
                    *sum += counters;
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

    /// The load of each worker.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn loads(&self) -> Result<Vec<Load>> {
        self.ask_all(|f, _| {
            let vports =
                f.out.ports.local().iter().filter(|port| matches!(port.at(), Port::Vport(_))).count();
            Load { vports, busy: f.busy }
        })
    }

    /// Free packet buffers, of all packet buffers. All are free when no packet is on its way.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn free_buffers(&self) -> Result<(usize, usize)> {
        let all = self.ask_all(|f, _| {
            f.out.pool.take_back();
            (f.out.pool.free(), f.out.pool.count() as usize)
        })?;
        Ok(all.into_iter().fold((0, 0), |(free, count), (f, c)| (free + f, count + c)))
    }

    pub(super) fn sizes(&self) -> &TableSizes {
        &self.sizes
    }

    /// Notes that a vport is written.
    pub(super) fn note_vport(&self, number: u16) {
        self.vports_end.fetch_max(number.saturating_add(1).min(Port::MAX_VPORTS), Ordering::Relaxed);
    }

    /// Behind the highest number of a vport that was ever written.
    pub(super) fn vports_end(&self) -> u16 {
        self.vports_end.load(Ordering::Relaxed)
    }

    pub(super) fn take_upcalls(&self) -> Option<Box<dyn UpcallQueue>> {
        self.upcalls.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn take_events(&self) -> Option<Box<dyn EventQueue>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Has a worker do a job between two bursts, in order. Does not wait for it.
    pub(super) fn tell(
        &self,
        worker: usize,
        job: impl FnOnce(&mut Forwarder) + Send + 'static,
    ) -> Result<()> {
        let stopped = || Error::NotRunning { device: NAME.into() };
        match self.workers.get(worker) {
            Some(WorkerHandle::Inline(worker)) => {
                job(worker.lock().unwrap_or_else(PoisonError::into_inner).forwarder());
                Ok(())
            }
            Some(WorkerHandle::Thread { jobs: Some(jobs), notifier, .. }) => {
                jobs.send(Box::new(job)).map_err(|_| stopped())?;
                notifier.notify()
            }
            _ => Err(stopped()),
        }
    }

    /// Has a worker do a job between two bursts, and returns where the answer will be.
    fn question<T: Send + 'static>(
        &self,
        worker: usize,
        job: impl FnOnce(&mut Forwarder) -> T + Send + 'static,
    ) -> Result<Receiver<T>> {
        let (sender, answer) = channel();
        self.tell(worker, move |f| {
            // The asking thread may have given up.
            let _ = sender.send(job(f));
        })?;
        Ok(answer)
    }

    /// Has a worker do a job between two bursts, and waits for the answer.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        worker: usize,
        job: impl FnOnce(&mut Forwarder) -> T + Send + 'static,
    ) -> Result<T> {
        wait(&self.question(worker, job)?)
    }

    /// Has all workers do a job, each between two bursts of its own, and waits for the answers, which come by worker. The
    /// job gets the worker's number.
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

impl WorkerHandle {
    /// Starts the thread of worker number `n`.
    fn start(n: usize, worker: Worker, notifier: Arc<Notifier>, core: Option<usize>) -> Result<Self> {
        let mut worker = worker;
        let (jobs, queue) = sync_channel(JOBS);
        let (done, pinned) = channel();
        let failed = |source| Error::System { what: "starting a worker of the switch", source };
        let wake = Arc::clone(&notifier);
        let thread = culvert_threads::spawn(format!("switch-{n}"), move || {
            let result = core.map_or(Ok(()), pin);
            let is_pinned = result.is_ok();
            // The starting thread waits for this.
            let _ = done.send(result);
            if is_pinned {
                poll_loop::run(&mut worker, &queue, &wake);
                worker.finish();
            }
        })
        .map_err(failed)?;
        pinned.recv_timeout(LIMIT).unwrap_or_else(|e| Err(io::Error::other(e))).map_err(failed)?;
        Ok(WorkerHandle::Thread { jobs: Some(jobs), notifier, thread: Some(thread) })
    }
}

fn wait<T>(answer: &Receiver<T>) -> Result<T> {
    answer.recv_timeout(LIMIT).map_err(|_| Error::Timeout {
        device: NAME.into(),
        what: "a job of a worker".into(),
        limit: LIMIT,
    })
}

impl Drop for Switch {
    fn drop(&mut self) {
        for handle in &mut self.workers {
            if let WorkerHandle::Thread { jobs, notifier, .. } = handle {
                *jobs = None;
                // The thread looks ten times a second even if it cannot be woken.
                let _ = notifier.notify();
            }
        }
        for handle in &mut self.workers {
            if let WorkerHandle::Thread { thread, .. } = handle
                && let Some(thread) = thread.take()
            {
                // A thread that panics ends the process.
                let _ = thread.join();
            }
        }
    }
}

/// Pins this thread to a processor.
fn pin(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if core < rustix::thread::CpuSet::MAX_CPU {
        set.set(core);
    }
    rustix::thread::sched_setaffinity(None, &set).map_err(|error| {
        let why = format!("{error}; /sys/devices/system/cpu/online lists the processors");
        io::Error::new(io::Error::from(error).kind(), format!("processor {core}: {why}"))
    })
}
