//! One queue of a device: its ring once the driver has enabled it, and the buffers to work on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use culvert_virtio::{Chain, Layout, ReceiveBuffers, Ring};

/// One queue, if it is enabled, and the room to work on it.
#[derive(Default)]
pub(super) struct QueueSlot {
    pub(super) queue: Option<Queue>,
    pub(super) chain: Chain,
    pub(super) receive_buffers: ReceiveBuffers,
}

/// An enabled queue.
pub(super) struct Queue {
    pub(super) ring: Ring,
    pub(super) layout: Layout,
    /// The engine has not touched it since the driver enabled it.
    pub(super) fresh: bool,
}

/// Locks, also after a thread has panicked with the lock: what it guards is valid at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
