//! What a port of the software NIC does.

use std::io;
use std::os::fd::BorrowedFd;

use super::packet::{Packet, Pool};

/// What became of a burst of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames that left; one that was segmented counts as its segments.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that found no room in the port's queue.
    pub full: u64,
    /// Frames for which there was no link.
    pub down: u64,
    /// Frames that are longer than the port takes, or cannot be cut the way they are meant to be.
    pub refused: u64,
}

/// A port: a TAP, an interface, the rings of a VM, or memory. One thread uses it. Nothing in it waits.
pub trait SwitchPort: Send {
    /// Takes frames that have come, in order, until there are none or `packets` has `most` of them. Each is at least an
    /// Ethernet header long and lies behind the buffer's headroom. What cannot be taken because the pool is empty
    /// waits, or is counted by [`lost`](Self::lost).
    ///
    /// Checksums of a frame are complete, unless it is yet to be segmented: then what stands in its (inner) transport
    /// checksum and in the outer UDP checksum means nothing until a port sends it, and of `offload` only `gso` and `mss`
    /// count, which go with the frame through whatever becomes of its headers.
    ///
    /// # Errors
    /// The port is broken, and will be opened anew.
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()>;

    /// Sends frames in order and gives their buffers back to the pool. What finds no room is dropped.
    ///
    /// # Errors
    /// The port is broken; the frames are gone.
    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent>;

    /// Frames lost on the way in since this was asked last.
    fn lost(&mut self) -> u64 {
        0
    }

    /// Whether there is a link: somebody on the other side.
    fn link(&mut self) -> bool {
        true
    }

    /// Nobody is to use the port again: what it has made outside of this process goes with it.
    fn retire(&mut self) {}

    /// Gets ready for a sleep, after which [`fd`](Self::fd) is readable when frames come. `false`: some have come.
    fn arm(&mut self) -> bool;

    /// Readable when frames have come.
    fn fd(&self) -> BorrowedFd<'_>;
}
