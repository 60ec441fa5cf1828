//! Asks for the state of a wire on a thread of its own: the answer waits for the kernel's RTNL, which any process of the host
//! can hold, or for a file system, and the engine never waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(100);

/// State of a wire at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkState {
    /// Whether the other end is connected.
    pub(super) up: bool,
    /// Frames that the medium has lost since it was last asked.
    pub(super) lost: u64,
}

#[derive(Default)]
struct Shared {
    up: AtomicBool,
    lost: AtomicU64,
}

impl Shared {
    fn publish(&self, state: LinkState) {
        self.up.store(state.up, Relaxed);
        self.lost.fetch_add(state.lost, Relaxed);
    }
}

/// The thread and what it has learned. The thread ends after this is dropped.
pub(super) struct LinkMonitor {
    shared: Arc<Shared>,
    _stop: Sender<()>,
}

impl LinkMonitor {
    /// Asks once, and from then on ten times a second on a thread in the same network namespace.
    ///
    /// # Errors
    /// Out of threads.
    pub(super) fn start(mut ask: impl FnMut() -> LinkState + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.publish(ask());
        let (stop, stopped) = channel::<()>();
        let of_thread = Arc::clone(&shared);
        let run = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                of_thread.publish(ask());
            }
        };
        std::thread::Builder::new().name("link-monitor".into()).spawn(run)?;
        Ok(LinkMonitor { shared, _stop: stop })
    }

    /// Whether the other end was connected when the wire was last asked.
    pub(super) fn is_up(&self) -> bool {
        self.shared.up.load(Relaxed)
    }

    /// Frames that the medium has lost since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        self.shared.lost.swap(0, Relaxed)
    }
}
