//! A port in memory: two queues of frames, for tests, examples and replays.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_offload::{EventFd, Result};

use crate::packet::Packet;
use crate::pool::Pool;
use crate::port::{Opener, Sent, SwitchPort};

/// The outer end of a port in memory. Clones are the same port.
#[derive(Clone)]
pub struct MemPort {
    queues: Arc<Mutex<Queues>>,
    arrived: EventFd,
}

#[derive(Default)]
struct Queues {
    to_switch: VecDeque<Vec<u8>>,
    from_switch: VecDeque<Vec<u8>>,
}

impl MemPort {
    /// A port with empty queues.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> Result<Self> {
        Ok(MemPort { queues: Arc::default(), arrived: EventFd::new()? })
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the switch a frame.
    pub fn push(&self, frame: Vec<u8>) {
        self.queues().to_switch.push_back(frame);
        // A switch that cannot be woken looks ten times a second.
        let _ = self.arrived.signal();
    }

    /// Takes the oldest frame that the switch sent.
    pub fn pop(&self) -> Option<Vec<u8>> {
        self.queues().from_switch.pop_front()
    }

    /// Opens the switch's end of this port.
    pub fn opener(&self) -> Opener {
        let port = self.clone();
        Box::new(move || Ok(Box::new(port.clone()) as Box<dyn SwitchPort>))
    }
}

impl SwitchPort for MemPort {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
        let mut queues = self.queues();
        while packets.len() < max
            && let Some(frame) = queues.to_switch.front()
            && let Some(mut packet) = pool.take_for(frame.len())
        {
            if packet.fill(frame) {
                packets.push(packet);
            } else {
                pool.give(packet);
            }
            queues.to_switch.pop_front();
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut sent = Sent::default();
        let mut queues = self.queues();
        for packet in packets.drain(..) {
            sent.packets += 1;
            sent.bytes += packet.bytes().len() as u64;
            queues.from_switch.push_back(packet.bytes().to_vec());
            pool.give(packet);
        }
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        // An event that cannot be cleared costs one more look.
        let _ = self.arrived.try_clear();
        self.queues().to_switch.is_empty()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}
