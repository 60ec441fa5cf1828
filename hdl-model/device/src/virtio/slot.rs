//! One queue of a device: its ring once the driver has enabled it, and the buffers to work on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ring::{Chain, Queue, Segment};

/// One queue, if it is enabled, and the room to work on it.
#[derive(Default)]
pub(super) struct QueueSlot {
    pub(super) queue: Option<Queue>,
    /// The engine has not touched it since the driver enabled it.
    pub(super) fresh: bool,
    pub(super) chain: Chain,
    pub(super) scratch: Scratch,
}

/// Receive buffers chosen for one frame. Reused from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) segments: Vec<Segment>,
    /// Head of each chain, and the bytes it takes.
    pub(super) used: Vec<(u16, u32)>,
}

/// Locks, also after a thread has panicked with the lock: what it guards is valid at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
