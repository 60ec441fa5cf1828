//! What a port tells others of itself: its connection, what its guest got wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use culvert_virtio::RingFault;

/// Why a frame of a guest was discarded; the ring goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Shorter than an Ethernet header.
    Truncated,
    /// Longer than 64 KiB.
    Oversize,
    /// A checksum outside the frame, or an offload that was not agreed on.
    BadOffload,
}

impl Discard {
    /// Number of kinds.
    pub const COUNT: usize = 3;
}

/// What a port has seen until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostUserCounters {
    /// Whether a VMM is connected.
    pub connected: bool,
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that ended because the VMM sent something impossible.
    pub refused: u64,
    /// Faults that stopped the port, in the order of [`RingFault::ALL`].
    pub faults: [u64; RingFault::COUNT],
    /// Frames that were discarded, in the order of [`Discard`].
    pub discards: [u64; Discard::COUNT],
}

pub(super) struct Shared {
    /// Where VMMs connect.
    pub(super) path: PathBuf,
    connected: AtomicBool,
    connections: AtomicU64,
    refused: AtomicU64,
    faults: [AtomicU64; RingFault::COUNT],
    discards: [AtomicU64; Discard::COUNT],
}

impl Shared {
    pub(super) fn new(path: &Path) -> Self {
        Shared {
            path: path.to_owned(),
            connected: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            faults: [const { AtomicU64::new(0) }; RingFault::COUNT],
            discards: [const { AtomicU64::new(0) }; Discard::COUNT],
        }
    }

    pub(super) fn connected(&self, now: bool) {
        self.connected.store(now, Ordering::Relaxed);
        self.connections.fetch_add(now.into(), Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fault(&self, fault: RingFault) {
        self.faults[fault.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn discard(&self, why: Discard) {
        self.discards[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// A port's counters, which other threads may read. Cloning gives another handle.
#[derive(Clone)]
pub struct VhostUserStatus(pub(super) Arc<Shared>);

impl VhostUserStatus {
    /// The counters now.
    pub fn counters(&self) -> VhostUserCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        VhostUserCounters {
            connected: self.0.connected.load(Ordering::Relaxed),
            connections: get(&self.0.connections),
            refused: get(&self.0.refused),
            faults: self.0.faults.each_ref().map(get),
            discards: self.0.discards.each_ref().map(get),
        }
    }
}
