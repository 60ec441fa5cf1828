//! The interface of a port of the switch.

use std::io;
use std::os::fd::BorrowedFd;

use crate::packet::Packet;
use crate::pool::Pool;

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
    /// Descriptors that the frames took beyond one each.
    pub descriptors: u64,
}

/// A port: a TAP, an interface, the rings of a VM, or memory. A packet thread uses it, so nothing in it waits for the kernel's
/// RTNL, a file system or another process. Opening it, [`monitor`](Self::monitor), [`destroy`](Self::destroy) and dropping it
/// may: port control does all that on other threads.
pub trait SwitchPort: Send {
    /// Receives frames, in order, until there are none or `packets` has `max` of them. Each is at least an Ethernet header
    /// long and lies behind the buffer's headroom. Frames that find no buffer wait, or are counted by [`take_rx_drops`](Self::take_rx_drops).
    ///
    /// Checksums of a frame are complete, unless it is yet to be segmented: then what stands in its (inner) transport
    /// checksum and in the outer UDP checksum means nothing until a port sends it, and of `offload` only `gso` and `mss`
    /// count, which go with the frame through whatever becomes of its headers.
    ///
    /// # Errors
    /// The port is broken, and will be opened anew.
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()>;

    /// Sends frames in order and gives their buffers back to the pool. What finds no room is dropped.
    ///
    /// # Errors
    /// The port is broken; the frames are gone.
    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent>;

    /// Frames that the port dropped on reception since the last call, for lack of room.
    fn take_rx_drops(&mut self) -> u64 {
        0
    }

    /// Frames that the port dropped on reception since the last call because they were longer than any buffer.
    fn take_rx_too_long(&mut self) -> u64 {
        0
    }

    /// Descriptors that received frames took beyond one each, since the last call: the port's next turns pay for them.
    fn take_rx_descriptors(&mut self) -> u64 {
        0
    }

    /// Whether the link is up: whether there is an other side.
    fn link(&mut self) -> bool {
        true
    }

    /// Longest IP packet that it sends, if it knows.
    fn mtu(&self) -> Option<u32> {
        None
    }

    /// What monitors the port, if there is something to monitor. Called once, after the port was opened.
    fn monitor(&mut self) -> Option<Box<dyn PortMonitor>> {
        None
    }

    /// Removes what the port made outside of this process. The port is not used afterwards.
    fn destroy(&mut self) {}

    /// Prepares for a sleep: [`fd`](Self::fd) becomes readable when frames arrive. `false`: some have arrived.
    fn arm(&mut self) -> bool;

    /// A descriptor that is readable when frames have arrived.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// Opens a port, each time that it broke. It may wait: it runs on a thread of port control.
pub type Opener = Box<dyn FnMut() -> io::Result<Box<dyn SwitchPort>> + Send>;

/// Reads what changes at a port and only the kernel or another process knows, such as the link, and publishes it to the port.
/// It is polled on a thread of its own, ten times a second, while the port is open, and may wait.
pub trait PortMonitor: Send {
    /// Reads it anew. `true`: the packet thread should look at the port.
    fn poll(&mut self) -> bool;
}
