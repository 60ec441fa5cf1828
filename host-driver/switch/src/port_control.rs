//! Port control: opens, closes and monitors ports on threads of its own. All of this may wait, for the kernel's RTNL, which any
//! process of the host can hold, for a file system or for another process; a packet thread never waits.
//!
//! Operations on ports of one name are done in order, so that a port is closed before its successor opens. Those on ports of
//! different names are done side by side: one that hangs holds up no other.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use culvert_flow::Port;
use culvert_offload::{Error, Result};

use crate::notifier::Notifier;
use crate::packet_thread;
use crate::port::{Opener, PortMonitor, SwitchPort};

/// Interval in which ports are monitored, and in which a thread that could not be started is tried again.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long the end of a switch waits for its ports to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The threads. They end when this is dropped, once all ports are closed.
pub struct PortControl {
    requests: Sender<Request>,
}

impl PortControl {
    /// Starts port control in the network namespace of this thread.
    ///
    /// # Errors
    /// Out of threads.
    pub fn start() -> Result<Self> {
        let failed = |source| Error::System { what: "starting port control", source };
        let (requests, queue) = channel();
        let (monitored, new) = channel();
        let mut dispatcher = Dispatcher {
            requests: requests.clone(),
            monitored,
            waiting: BTreeMap::new(),
            stalled: VecDeque::new(),
        };
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        named("port-monitor").spawn(move || monitor(&new)).map_err(failed)?;
        named("port-control").spawn(move || dispatcher.run(&queue)).map_err(failed)?;
        Ok(PortControl { requests })
    }

    /// The way of a packet thread to port control, which wakes it by its notifier.
    pub fn tx(&self, notifier: &Arc<Notifier>) -> PortControlTx {
        let wake = Wake { changed: AtomicBool::new(false), notifier: Arc::clone(notifier) };
        PortControlTx(Some(Threads { requests: self.requests.clone(), wake: Arc::new(wake) }))
    }
}

impl Drop for PortControl {
    fn drop(&mut self) {
        let (done, ended) = channel();
        let _ = self.requests.send(Request::End(done));
        if ended.recv_timeout(CLOSE_LIMIT).is_err() {
            tracing::warn!(
                seconds = CLOSE_LIMIT.as_secs(),
                "ports are still closing: not waiting any longer"
            );
        }
    }
}

/// A packet thread's way to port control. The default does everything at once in the thread that asks: for a switch without
/// threads, whose ports are memory.
#[derive(Clone, Default)]
pub struct PortControlTx(Option<Threads>);

#[derive(Clone)]
struct Threads {
    requests: Sender<Request>,
    wake: Arc<Wake>,
}

/// How a packet thread learns that a port was opened or its link has changed.
struct Wake {
    changed: AtomicBool,
    notifier: Arc<Notifier>,
}

impl Wake {
    fn wake(&self) {
        self.changed.store(true, Ordering::Release);
        // A thread that cannot be woken looks ten times a second.
        let _ = self.notifier.notify();
    }
}

impl PortControlTx {
    /// Has a port opened.
    pub(super) fn open(&self, at: Port, open: Opener) -> Opening {
        let (answer, opened) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let opening = Opening { opened, cancelled: Arc::clone(&cancelled) };
        match &self.0 {
            Some(threads) => {
                let wake = Arc::clone(&threads.wake);
                let operation = Operation::Open { open, answer, cancelled, wake };
                // If port control has ended, the port stays closed.
                let _ = threads.requests.send(Request::Do(at, operation));
            }
            None => {
                let _ = answer.send(Opened::new(open, OpenPort::inline));
            }
        }
        opening
    }

    /// Has a port closed. `destroy`: also what it made outside of this process.
    pub(super) fn close(&self, at: Port, closing: Closing, destroy: bool) {
        if let Closing::Opening(opening) = &closing {
            opening.cancelled.store(true, Ordering::Release);
        }
        match &self.0 {
            Some(threads) => {
                let _ = threads.requests.send(Request::Do(at, Operation::Close { closing, destroy }));
            }
            None => closing.close(destroy),
        }
    }

    /// Whether a port was opened or a link has changed since the last call.
    pub fn take_changed(&self) -> bool {
        self.is_changed() && self.0.as_ref().is_some_and(|t| t.wake.changed.swap(false, Ordering::Acquire))
    }

    /// The same, without forgetting it.
    #[inline]
    pub fn is_changed(&self) -> bool {
        self.0.as_ref().is_some_and(|threads| threads.wake.changed.load(Ordering::Relaxed))
    }
}

/// A port that is being opened.
pub(super) struct Opening {
    pub(super) opened: Receiver<Opened>,
    cancelled: Arc<AtomicBool>,
}

/// Result of an attempt to open a port.
pub(super) struct Opened {
    pub(super) open: Opener,
    pub(super) port: io::Result<OpenPort>,
}

impl Opened {
    fn new(mut open: Opener, monitored: impl FnOnce(Box<dyn SwitchPort>) -> OpenPort) -> Self {
        let port = open().map(monitored);
        Opened { open, port }
    }
}

/// An open port, and what monitors it.
pub(super) struct OpenPort {
    pub(super) port: Box<dyn SwitchPort>,
    monitored: Monitored,
}

enum Monitored {
    /// By the monitor's thread, as long as this lives.
    ByThread { _alive: Arc<()> },
    /// By whoever asks for the link.
    Inline(Option<Box<dyn PortMonitor>>),
}

impl OpenPort {
    fn inline(mut port: Box<dyn SwitchPort>) -> Self {
        let monitored = Monitored::Inline(port.monitor());
        OpenPort { port, monitored }
    }

    /// Whether the link is up.
    pub(super) fn link(&mut self) -> bool {
        if let Monitored::Inline(Some(monitor)) = &mut self.monitored {
            monitor.poll();
        }
        self.port.link()
    }
}

/// What is to be closed.
pub(super) enum Closing {
    Port(OpenPort),
    /// A port that is still being opened.
    Opening(Opening),
}

impl Closing {
    fn close(self, destroy: bool) {
        let port = match self {
            Closing::Port(port) => Some(port),
            // What opened it has ended: operations of one name are done in order.
            Closing::Opening(opening) => opening.opened.try_recv().ok().and_then(|opened| opened.port.ok()),
        };
        if let Some(mut open) = port {
            if destroy {
                open.port.destroy();
            }
            drop(open);
        }
    }
}

/// Something that may wait.
enum Operation {
    Open { open: Opener, answer: Sender<Opened>, cancelled: Arc<AtomicBool>, wake: Arc<Wake> },
    Close { closing: Closing, destroy: bool },
}

impl Operation {
    fn execute(self, monitored: &Sender<MonitoredPort>) {
        packet_thread::assert_may_wait();
        match self {
            Operation::Open { cancelled, .. } if cancelled.load(Ordering::Acquire) => {}
            Operation::Open { open, answer, wake, .. } => {
                let watch = |mut port: Box<dyn SwitchPort>| {
                    let alive = Arc::new(());
                    if let Some(monitor) = port.monitor() {
                        let (alive, wake) = (Arc::downgrade(&alive), Arc::clone(&wake));
                        // Fails only at the end of the process.
                        let _ = monitored.send(MonitoredPort { alive, monitor, wake });
                    }
                    OpenPort { port, monitored: Monitored::ByThread { _alive: alive } }
                };
                // If nobody waits for the port any more, it is closed here.
                let _ = answer.send(Opened::new(open, watch));
                wake.wake();
            }
            Operation::Close { closing, destroy } => closing.close(destroy),
        }
    }
}

enum Request {
    /// Execute an operation on the port of this name.
    Do(Port, Operation),
    /// An operation on the port of this name has ended.
    Done(Port),
    /// End when all operations have ended, and tell.
    End(Sender<()>),
}

/// The thread that starts a thread for each operation.
struct Dispatcher {
    requests: Sender<Request>,
    monitored: Sender<MonitoredPort>,
    /// By name of a port with an operation under way: the operations that follow.
    waiting: BTreeMap<Port, VecDeque<Operation>>,
    /// Operations for which there was no thread.
    stalled: VecDeque<(Port, Operation)>,
}

impl Dispatcher {
    fn run(&mut self, queue: &Receiver<Request>) {
        let mut ended = None;
        while ended.is_none() || !self.waiting.is_empty() {
            match queue.recv_timeout(INTERVAL) {
                Ok(Request::Do(at, operation)) => match self.waiting.get_mut(&at) {
                    Some(waiting) => waiting.push_back(operation),
                    None => {
                        self.waiting.insert(at, VecDeque::new());
                        self.start(at, operation);
                    }
                },
                Ok(Request::Done(at)) => match self.waiting.get_mut(&at).and_then(VecDeque::pop_front) {
                    Some(next) => self.start(at, next),
                    None => drop(self.waiting.remove(&at)),
                },
                Ok(Request::End(done)) => ended = Some(done),
                // The queue is never disconnected: this thread can send to it.
                Err(_) => {
                    for (at, operation) in std::mem::take(&mut self.stalled) {
                        self.start(at, operation);
                    }
                }
            }
        }
        ended.map(|done| done.send(()));
    }

    /// Starts an operation.
    fn start(&mut self, at: Port, operation: Operation) {
        // A thread that does not start would take the operation with it.
        let place = Arc::new(Mutex::new(Some(operation)));
        let take =
            |place: &Mutex<Option<Operation>>| place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (own, monitored, requests) = (Arc::clone(&place), self.monitored.clone(), self.requests.clone());
        let run = move || {
            let _done = Done { at, requests };
            if let Some(operation) = take(&own) {
                operation.execute(&monitored);
            }
        };
        let started = std::thread::Builder::new().name("port-operation".to_owned()).spawn(run);
        if let Err(error) = started
            && let Some(operation) = take(&place)
        {
            tracing::warn!(%error, "cannot start a thread to open or close a port; will retry");
            self.stalled.push_back((at, operation));
        }
    }
}

/// Reports the end of an operation, however it ends.
struct Done {
    at: Port,
    requests: Sender<Request>,
}

impl Drop for Done {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Done(self.at));
    }
}

/// A port that is monitored.
struct MonitoredPort {
    /// Gone when the port is to be closed.
    alive: Weak<()>,
    monitor: Box<dyn PortMonitor>,
    wake: Arc<Wake>,
}

/// Monitors ports until port control and all operations have ended.
fn monitor(new: &Receiver<MonitoredPort>) {
    let mut ports: Vec<MonitoredPort> = Vec::new();
    let mut next = Instant::now() + INTERVAL;
    loop {
        match new.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(port) => ports.push(port),
            Err(RecvTimeoutError::Timeout) => {
                ports.retain_mut(|port| {
                    let alive = port.alive.strong_count() > 0;
                    if alive && port.monitor.poll() {
                        port.wake.wake();
                    }
                    alive
                });
                next = Instant::now() + INTERVAL;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests;
