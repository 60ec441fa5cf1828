//! Two ports joined in memory, for tests of the stack without a device.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_pci::Interrupt;

use crate::{Counters, Error, FramePort, Result};

/// Frames in flight in one direction.
#[derive(Default)]
struct Lane(Mutex<VecDeque<Vec<u8>>>);

impl Lane {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a wire in memory. Its "ring" holds [`Loopback::RING`] frames.
pub struct Loopback {
    mac: [u8; 6],
    out: Arc<Lane>,
    input: Arc<Lane>,
    frame_came: Interrupt,
    room_came: Interrupt,
    peer_frame_came: Interrupt,
    peer_room_came: Interrupt,
    sent: bool,
    counters: Counters,
}

impl Loopback {
    /// Frames that fit in one direction.
    pub const RING: usize = 256;

    /// Two joined ends with these MAC addresses.
    ///
    /// # Errors
    /// No file descriptors left.
    pub fn pair(first: [u8; 6], second: [u8; 6]) -> Result<(Self, Self)> {
        let lanes = (Arc::new(Lane::default()), Arc::new(Lane::default()));
        let frame = (Interrupt::new()?, Interrupt::new()?);
        let room = (Interrupt::new()?, Interrupt::new()?);
        let end =
            |mac, out: &Arc<Lane>, input: &Arc<Lane>, own: [&Interrupt; 2], peer: [&Interrupt; 2]| Self {
                mac,
                out: Arc::clone(out),
                input: Arc::clone(input),
                frame_came: own[0].clone(),
                room_came: own[1].clone(),
                peer_frame_came: peer[0].clone(),
                peer_room_came: peer[1].clone(),
                sent: false,
                counters: Counters::default(),
            };
        let (one, two) = ([&frame.0, &room.0], [&frame.1, &room.1]);
        Ok((end(first, &lanes.0, &lanes.1, one, two), end(second, &lanes.1, &lanes.0, two, one)))
    }
}

impl FramePort for Loopback {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn can_send(&mut self) -> bool {
        self.out.lock().len() < Self::RING
    }

    fn send(&mut self, frame: &[u8], _: Option<(u16, u16)>) -> Result<()> {
        let mut out = self.out.lock();
        if out.len() >= Self::RING {
            return Err(Error::RingFull(std::time::Duration::ZERO));
        }
        out.push_back(frame.to_vec());
        self.sent = true;
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if std::mem::take(&mut self.sent) {
            self.counters.kicks += 1;
            self.peer_frame_came.signal()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut input = self.input.lock();
        let frame = input.pop_front();
        if let Some(frame) = &frame {
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame.len() as u64;
            if input.len() == Self::RING / 2 {
                self.peer_room_came.signal()?;
            }
        }
        Ok(frame)
    }

    fn arm(&mut self, tx: bool) -> bool {
        !self.input.lock().is_empty() || (tx && self.can_send())
    }

    fn disarm(&mut self) -> Result<()> {
        self.frame_came.try_clear()?;
        self.room_came.try_clear()?;
        Ok(())
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.frame_came.as_fd(), self.room_came.as_fd()]
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
