//! What a port tells others of itself: its connection, what its guest got wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What stopped a guest's ring, and the port with it, until the VMM sets the ring up anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// The available index moved by more than the ring's size, or backwards.
    #[error("the available index jumped")]
    AvailableIndex,
    /// A descriptor index that its table does not have.
    #[error("a descriptor index is out of range")]
    DescriptorIndex,
    /// A chain longer than the ring.
    #[error("a descriptor chain loops")]
    Loop,
    /// An indirect descriptor that was not agreed on, is not whole, or is in the wrong place.
    #[error("an indirect descriptor is wrong")]
    Indirect,
    /// A buffer for the device to read behind one for it to write.
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// A receive buffer without room for the header, or in too many pieces.
    #[error("a receive buffer is too short")]
    ShortBuffer,
    /// The ring's size, or where it lies, is what virtio forbids.
    #[error("the ring was set up wrongly")]
    Setup,
    /// A ring or a buffer lies outside the guest's memory.
    #[error("an address outside the guest's memory")]
    Unmapped,
    /// The owner of a memory file has made it shorter.
    #[error("the guest's memory file has shrunk")]
    Shrunk,
}

impl RingFault {
    /// Number of kinds.
    pub const COUNT: usize = 9;
    /// All kinds, in the order of their counters.
    pub const ALL: [RingFault; Self::COUNT] = [
        Self::AvailableIndex,
        Self::DescriptorIndex,
        Self::Loop,
        Self::Indirect,
        Self::Order,
        Self::ShortBuffer,
        Self::Setup,
        Self::Unmapped,
        Self::Shrunk,
    ];
}

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
        self.faults[fault as usize].fetch_add(1, Ordering::Relaxed);
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
