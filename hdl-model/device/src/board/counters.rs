//! The board's counters, as the registers show them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use culvert_abi::soc::BoardPort;
use culvert_packet::Reason;

/// Ports that are counted: 64 VFs, then the uplinks.
pub(super) const PORTS: usize = 66;

/// Counters of one port.
#[derive(Default)]
pub(super) struct Port {
    /// Frames in, bytes in, frames out, bytes out, frames dropped, frames carried by messages.
    words: [AtomicU64; 6],
}

/// All of them.
pub struct Counters {
    drops: [AtomicU64; 256],
    ports: [Port; PORTS],
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
            ports: std::array::from_fn(|_| Port::default()),
        }
    }
}

fn index(port: BoardPort) -> Option<usize> {
    match port {
        BoardPort::Vf(n) => Some(usize::from(n)),
        BoardPort::Uplink(n) if n < 2 => Some(64 + usize::from(n)),
        _ => None,
    }
}

impl Counters {
    /// Counts a received frame.
    pub fn frame_in(&self, port: BoardPort, len: usize) {
        self.add(port, 0, 1, len as u64);
    }

    /// Counts sent frames and their bytes.
    pub fn frames_out(&self, port: BoardPort, frames: u64, bytes: u64) {
        self.add(port, 2, frames, bytes);
    }

    fn add(&self, port: BoardPort, word: usize, frames: u64, bytes: u64) {
        if let Some(port) = index(port).and_then(|i| self.ports.get(i)) {
            port.words[word].fetch_add(frames, Relaxed);
            port.words[word + 1].fetch_add(bytes, Relaxed);
        }
    }

    /// Shows how many frames of a VF messages to its client have carried, since its memory is not shared.
    pub fn set_by_message(&self, port: BoardPort, frames: u64) {
        if let Some(port) = index(port).and_then(|i| self.ports.get(i)) {
            port.words[5].store(frames, Relaxed);
        }
    }

    /// Counts frames of `port` that the board has dropped. The firmware counts what it drops itself.
    pub fn drop(&self, port: BoardPort, reason: Reason, count: u64) {
        self.drops[reason as usize].fetch_add(count, Relaxed);
        self.port_drop(port, count);
    }

    /// Counts dropped frames of a port, whichever side dropped them.
    pub fn port_drop(&self, port: BoardPort, count: u64) {
        if let Some(port) = index(port).and_then(|i| self.ports.get(i)) {
            port.words[4].fetch_add(count, Relaxed);
        }
    }

    /// Frames that the board has dropped for a reason, by its number.
    pub fn dropped(&self, reason: usize) -> u64 {
        self.drops.get(reason).map_or(0, |d| d.load(Relaxed))
    }

    /// Word `word` of port `port`, as the registers number them.
    pub fn port(&self, port: usize, word: usize) -> u64 {
        self.ports.get(port).and_then(|p| p.words.get(word)).map_or(0, |w| w.load(Relaxed))
    }
}
