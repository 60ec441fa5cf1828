//! Asks for the state of a wire on a thread of its own: the answer waits for the kernel's RTNL, which any process of the host
//! can hold, or for a file system, and the engine never waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Shared {
    up: AtomicBool,
    lost: AtomicU64,
}

impl Shared {
    fn publish(&self, (up, lost): (bool, u64)) {
        self.up.store(up, Relaxed);
        self.lost.fetch_add(lost, Relaxed);
    }
}

/// The thread and what it has learned. The thread ends after this is dropped.
pub(super) struct LinkMonitor {
    shared: Arc<Shared>,
    _stop: Sender<()>,
}

impl LinkMonitor {
    /// Asks once, and from then on ten times a second on a thread in the same network namespace. `ask` says whether the other
    /// end is connected, and how many frames the medium has lost since it was last asked.
    ///
    /// # Errors
    /// Out of threads.
    pub(super) fn start(mut ask: impl FnMut() -> (bool, u64) + Send + 'static) -> io::Result<Self> {
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
