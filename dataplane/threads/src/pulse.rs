//! Signs of life: which critical threads have stopped going around their loops.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A thread and how often it has given a sign.
#[derive(Debug)]
struct Pulse {
    name: String,
    count: AtomicU64,
}

/// All threads that have given a sign.
static PULSES: Mutex<Vec<Weak<Pulse>>> = Mutex::new(Vec::new());

thread_local! {
    /// Ends with the thread: one that has returned is missed by nobody.
    static PULSE: OnceCell<Arc<Pulse>> = const { OnceCell::new() };
}

/// A sign that the current thread goes on. From the first one on it must give another within the limit of each [`Watch`].
pub fn beat() {
    // A thread that is being torn down has none any more.
    let _ = PULSE.try_with(|pulse| {
        let pulse = pulse.get_or_init(register);
        // This thread alone writes it.
        pulse.count.store(pulse.count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    });
}

fn register() -> Arc<Pulse> {
    let name = std::thread::current().name().unwrap_or("without a name").to_owned();
    let pulse = Arc::new(Pulse { name, count: AtomicU64::new(0) });
    let mut all = PULSES.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|other| other.strong_count() > 0);
    all.push(Arc::downgrade(&pulse));
    pulse
}

/// Notes when each thread gave a new sign.
#[derive(Debug)]
pub struct Watch {
    limit: Duration,
    /// Count and time of the last new sign, by the thread's place in memory, which is its own as long as it is kept here.
    seen: HashMap<usize, (Weak<Pulse>, u64, Instant)>,
}

impl Watch {
    /// A watch that misses a thread after `limit`.
    pub fn new(limit: Duration) -> Self {
        Watch { limit, seen: HashMap::new() }
    }

    /// Names of the threads that have given no new sign for longer than the limit. Ask much more often than that.
    pub fn silent(&mut self, now: Instant) -> Vec<String> {
        let all: Vec<Arc<Pulse>> = {
            let all = PULSES.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        self.seen.retain(|_, (pulse, ..)| pulse.strong_count() > 0);
        let mut silent = Vec::new();
        for pulse in all {
            let count = pulse.count.load(Ordering::Relaxed);
            let new = || (Arc::downgrade(&pulse), count, now);
            let seen = self.seen.entry(Arc::as_ptr(&pulse).addr()).or_insert_with(new);
            if seen.1 != count {
                *seen = new();
            } else if now.saturating_duration_since(seen.2) > self.limit {
                silent.push(pulse.name.clone());
            }
        }
        silent
    }
}
