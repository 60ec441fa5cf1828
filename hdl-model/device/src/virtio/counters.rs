//! Counters of a VF's queues.

use std::sync::atomic::{AtomicU64, Ordering};

use culvert_packet::Reason;
use culvert_virtio::RingFault;

use super::config::{Discard, RxError};

/// A device's counters at one moment. Bytes count from the Ethernet header on, without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken from the guest.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames given to the guest.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames for which the guest had no buffer.
    pub rx_no_buffer: u64,
    /// Frames for which the receive queue was not running.
    pub rx_stopped: u64,
    /// Frames longer than the guest's buffer.
    pub rx_too_long: u64,
    /// Notifications from the guest's driver.
    pub kicks: u64,
    /// Interrupts to it.
    pub interrupts: u64,
    /// Transmitted frames that were discarded, in the order of [`Discard::ALL`].
    pub discards: [u64; Discard::COUNT],
    /// Faults that stopped a queue, in the order of [`RingFault::ALL`].
    pub faults: [u64; RingFault::COUNT],
    /// Frames, both ways, that messages to the client have carried, because its memory is not shared.
    pub by_message: u64,
}

/// What became of frames that were queued for a guest whose memory is not shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// Frames in the guest's buffers, and their bytes.
    pub delivered: (u64, u64),
    /// Frames lost, and their bytes, in the order of [`RxError::ALL`].
    pub lost: [(u64, u64); RxError::COUNT],
}

/// The same, while they count.
#[derive(Default)]
pub(super) struct Live {
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    rx_no_buffer: AtomicU64,
    rx_stopped: AtomicU64,
    rx_too_long: AtomicU64,
    kicks: AtomicU64,
    interrupts: AtomicU64,
    discards: [AtomicU64; Discard::COUNT],
    faults: [AtomicU64; RingFault::COUNT],
    by_message: AtomicU64,
    /// Discards and faults that the board has counted already.
    reported: [[AtomicU64; RingFault::COUNT]; 2],
    /// What the board has not taken yet of [`Late`]: delivered, then lost; frames and bytes.
    late: [[AtomicU64; 2]; 1 + RxError::COUNT],
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What a counter has gained since it was last reported.
fn gained(counter: &AtomicU64, reported: &AtomicU64) -> u64 {
    let now = get(counter);
    now - reported.swap(now, Ordering::Relaxed)
}

impl Live {
    pub(super) fn sent(&self, len: usize) {
        add(&self.tx_frames, 1);
        add(&self.tx_bytes, len as u64);
    }

    pub(super) fn received(&self, len: usize) {
        add(&self.rx_frames, 1);
        add(&self.rx_bytes, len as u64);
    }

    pub(super) fn refused(&self, error: RxError) {
        let counter = match error {
            RxError::NoBuffer => &self.rx_no_buffer,
            RxError::Stopped => &self.rx_stopped,
            RxError::TooLong => &self.rx_too_long,
        };
        add(counter, 1);
    }

    pub(super) fn discarded(&self, why: Discard) {
        add(&self.discards[why as usize], 1);
    }

    /// Returns how often this kind has been counted now.
    pub(super) fn fault(&self, fault: RingFault) -> u64 {
        self.faults[fault.index()].fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn kick(&self) {
        add(&self.kicks, 1);
    }

    pub(super) fn interrupt(&self) {
        add(&self.interrupts, 1);
    }

    /// A frame that messages have carried.
    pub(super) fn carried(&self) {
        add(&self.by_message, 1);
    }

    /// What has become of a queued frame of `len` bytes.
    pub(super) fn late(&self, result: Result<(), RxError>, len: usize) {
        let at = match result {
            Ok(()) => 0,
            Err(error) => 1 + error as usize,
        };
        match result {
            Ok(()) => self.received(len),
            Err(error) => self.refused(error),
        }
        add(&self.late[at][0], 1);
        add(&self.late[at][1], len as u64);
    }

    /// What has become of queued frames since the last call.
    pub(super) fn new_late(&self) -> Late {
        let take =
            |pair: &[AtomicU64; 2]| (pair[0].swap(0, Ordering::Relaxed), pair[1].swap(0, Ordering::Relaxed));
        let [delivered, lost @ ..] = &self.late;
        Late { delivered: take(delivered), lost: lost.each_ref().map(take) }
    }

    /// Discards since the last call.
    pub(super) fn new_discards(&self) -> [(Reason, u64); Discard::COUNT] {
        std::array::from_fn(|i| (Discard::ALL[i].reason(), gained(&self.discards[i], &self.reported[0][i])))
    }

    /// Faults since the last call, by kind.
    pub(super) fn new_faults(&self) -> [(Reason, u64); RingFault::COUNT] {
        std::array::from_fn(|i| (RingFault::ALL[i].reason(), gained(&self.faults[i], &self.reported[1][i])))
    }

    pub(super) fn snapshot(&self) -> Counters {
        Counters {
            tx_frames: get(&self.tx_frames),
            tx_bytes: get(&self.tx_bytes),
            rx_frames: get(&self.rx_frames),
            rx_bytes: get(&self.rx_bytes),
            rx_no_buffer: get(&self.rx_no_buffer),
            rx_stopped: get(&self.rx_stopped),
            rx_too_long: get(&self.rx_too_long),
            kicks: get(&self.kicks),
            interrupts: get(&self.interrupts),
            discards: std::array::from_fn(|i| get(&self.discards[i])),
            faults: std::array::from_fn(|i| get(&self.faults[i])),
            by_message: get(&self.by_message),
        }
    }
}
