//! `FramePort`: what the stack needs of a network device. The VF is one, the in-memory pair of the tests another.

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use crate::Result;

/// What has passed a port.
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
    /// Times that the transmit ring had no room.
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

    /// Whether the next [`FramePort::send`] has room.
    fn can_send(&mut self) -> bool;

    /// Puts a frame into the transmit ring. The device learns of it with the next [`FramePort::flush`].
    /// `partial` is where a checksum starts and where, counted from there, it is to be stored, if the device is to
    /// complete it.
    ///
    /// # Errors
    /// A frame of impossible length, a full ring, a broken device.
    fn send(&mut self, frame: &[u8], partial: Option<(u16, u16)>) -> Result<()>;

    /// Tells the device of all frames sent and buffers freed since the last time.
    ///
    /// # Errors
    /// A lost device.
    fn flush(&mut self) -> Result<()>;

    /// Takes the next received frame.
    ///
    /// # Errors
    /// A broken device.
    fn receive(&mut self) -> Result<Option<Vec<u8>>>;

    /// Asks for interrupts (no more of them than needed) before a sleep: when a frame comes and, if `tx` is set, when
    /// there is room to send. True if that is so already: then do not sleep.
    fn arm(&mut self, tx: bool) -> bool;

    /// Asks for no interrupts, after a sleep, and clears those that came.
    ///
    /// # Errors
    /// A lost device.
    fn disarm(&mut self) -> Result<()>;

    /// What to sleep on.
    fn events(&self) -> Vec<BorrowedFd<'_>>;

    /// What has passed so far.
    fn counters(&self) -> Counters;
}
