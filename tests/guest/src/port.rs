//! `FramePort`: the network device of the stack. A VF is one; so is an end of the in-memory pair of the tests.

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use crate::Result;

/// Counters of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames put into the transmit ring.
    pub tx_frames: u64,
    /// Their bytes, from the Ethernet header on.
    pub tx_bytes: u64,
    /// Frames taken from the receive ring.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Received buffers that held no valid frame.
    pub rx_malformed: u64,
    /// Notifications sent to the device.
    pub kicks: u64,
    /// Times that the transmit ring was full.
    pub tx_full: u64,
}

/// A device that sends and receives Ethernet frames without FCS, in bursts.
pub trait FramePort: Send {
    /// The MAC address.
    fn mac(&self) -> [u8; 6];

    /// The largest layer 3 packet.
    fn mtu(&self) -> u16;

    /// Whether the device completes TCP checksums.
    fn checksum_offload(&self) -> bool {
        false
    }

    /// Whether the transmit ring has room for a frame.
    fn can_send(&mut self) -> bool;

    /// Puts a frame into the transmit ring. The next [`FramePort::flush`] notifies the device.
    /// `partial`, for a checksum that the device completes: where it starts, and the field's offset from there.
    ///
    /// # Errors
    /// The frame's length is invalid, the ring is full, or the device is broken.
    fn send(&mut self, frame: &[u8], partial: Option<(u16, u16)>) -> Result<()>;

    /// Notifies the device of all frames sent and buffers freed since the last call.
    ///
    /// # Errors
    /// The device is lost.
    fn flush(&mut self) -> Result<()>;

    /// The next received frame.
    ///
    /// # Errors
    /// The device is broken.
    fn receive(&mut self) -> Result<Option<Vec<u8>>>;

    /// Enables interrupts before a sleep: for received frames and, with `tx`, for room to send. Returns true if there is a
    /// frame or room already: then do not sleep.
    fn arm(&mut self, tx: bool) -> bool;

    /// Disables interrupts after a sleep, and clears pending ones.
    ///
    /// # Errors
    /// The device is lost.
    fn disarm(&mut self) -> Result<()>;

    /// Descriptors that become readable with an interrupt.
    fn events(&self) -> Vec<BorrowedFd<'_>>;

    /// Counters so far.
    fn counters(&self) -> Counters;
}
