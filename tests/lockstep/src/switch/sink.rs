//! The ports of the switch under test.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_flow::Port;
use culvert_offload::EventFd;
use culvert_switch::{Packet, Pool, Sent, SwitchPort};

/// Sent frames with their ports, in order, of all ports.
pub(super) type SentFrames = Arc<Mutex<Vec<(Port, Vec<u8>)>>>;

/// A port that records sent frames and never receives any.
pub(super) struct Sink {
    port: Port,
    sent: SentFrames,
    never: EventFd,
}

impl Sink {
    /// Opens a port that adds its frames to `sent`.
    pub(super) fn open(port: Port, sent: SentFrames) -> std::io::Result<Self> {
        let never = EventFd::new().map_err(std::io::Error::other)?;
        Ok(Sink { port, sent, never })
    }
}

impl SwitchPort for Sink {
    fn receive(&mut self, _: &mut Pool, _: &mut Vec<Packet>, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> std::io::Result<Sent> {
        let mut sent = Sent::default();
        let mut frames = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        for packet in packets.drain(..) {
            sent.packets += 1;
            sent.bytes += packet.bytes().len() as u64;
            frames.push((self.port, packet.bytes().to_vec()));
            pool.give(packet);
        }
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}
