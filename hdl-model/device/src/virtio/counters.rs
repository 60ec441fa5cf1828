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
    /// Discards and faults that the board has counted already.
    reported: [[AtomicU64; RingFault::COUNT]; 2],
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
        }
    }
}
