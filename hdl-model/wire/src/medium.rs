//! A medium of a MAC port.

use std::os::fd::BorrowedFd;

use culvert_packet::Reason;

/// Result of a receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// Nothing now.
    Nothing,
    /// A frame of so many bytes, without FCS.
    Frame(usize),
    /// A frame that is dropped, and why.
    Bad(Reason),
}

/// A medium. Nothing in it waits for the kernel's RTNL, a file system or another process: the engine serves all guests.
pub trait Wire: Send {
    /// Takes the next frame off the medium.
    fn receive(&mut self, into: &mut [u8]) -> Received;

    /// Puts a frame on the medium, header and payload as one.
    ///
    /// # Errors
    /// It is lost: why.
    fn send(&mut self, header: &[u8], payload: &[u8]) -> Result<(), Reason>;

    /// Becomes readable when there is a frame.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether the other end is connected, as far as is known by now. Called a few times a second.
    fn link(&mut self) -> bool;

    /// Frames that the medium itself is known to have lost since the last call, because they were not taken off in time.
    fn lost(&mut self) -> u64;
}
