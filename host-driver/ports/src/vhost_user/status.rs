//! Counters of a vhost-user port: connections, ring faults, dropped frames.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use culvert_virtio::RingFault;

/// Why a guest's frame was dropped. The vring keeps running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VhostUserDrop {
    /// Shorter than an Ethernet header.
    Truncated,
    /// Longer than 64 KiB.
    Oversize,
    /// A checksum outside the frame, or an offload that was not negotiated.
    BadOffload,
}

impl VhostUserDrop {
    /// Number of reasons.
    pub const COUNT: usize = 3;
}

/// Counters of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostUserCounters {
    /// Whether a VMM is connected.
    pub connected: bool,
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that were closed because of an invalid request.
    pub refused: u64,
    /// Faults that stopped the port, in the order of [`RingFault::ALL`].
    pub faults: [u64; RingFault::COUNT],
    /// Dropped frames, in the order of [`VhostUserDrop`].
    pub drops: [u64; VhostUserDrop::COUNT],
}

/// The counters, shared by the connection's thread, the forwarding thread and readers.
pub(super) struct PortStatus {
    /// Path of the socket.
    pub(super) path: PathBuf,
    connected: AtomicBool,
    connections: AtomicU64,
    refused: AtomicU64,
    faults: [AtomicU64; RingFault::COUNT],
    drops: [AtomicU64; VhostUserDrop::COUNT],
}

impl PortStatus {
    pub(super) fn new(path: &Path) -> Self {
        PortStatus {
            path: path.to_owned(),
            connected: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            faults: [const { AtomicU64::new(0) }; RingFault::COUNT],
            drops: [const { AtomicU64::new(0) }; VhostUserDrop::COUNT],
        }
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
        self.connections.fetch_add(connected.into(), Ordering::Relaxed);
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_fault(&self, fault: RingFault) {
        self.faults[fault.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_drop(&self, reason: VhostUserDrop) {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// A handle to a port's counters, for other threads.
#[derive(Clone)]
pub struct VhostUserStatus(pub(super) Arc<PortStatus>);

impl VhostUserStatus {
    /// The current counters.
    pub fn counters(&self) -> VhostUserCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        VhostUserCounters {
            connected: self.0.connected.load(Ordering::Relaxed),
            connections: get(&self.0.connections),
            refused: get(&self.0.refused),
            faults: self.0.faults.each_ref().map(get),
            drops: self.0.drops.each_ref().map(get),
        }
    }
}
