//! Ports in memory: two queues, one in each direction.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use culvert_offload::EventFd;
use culvert_switch::{Packet, Pool, Sent, SwitchPort};

/// Frames under way in one direction.
pub(crate) struct FrameQueue {
    frames: Mutex<VecDeque<Vec<u8>>>,
    came: EventFd,
    up: AtomicBool,
    /// Frames that fit.
    pub(crate) room: AtomicUsize,
    /// Bytes that a frame may have.
    pub(crate) longest: AtomicUsize,
    /// Whether each burst takes its sender a while.
    pub(crate) slow: AtomicBool,
}

impl FrameQueue {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(FrameQueue {
            frames: Mutex::default(),
            came: EventFd::new().unwrap(),
            up: AtomicBool::new(true),
            room: AtomicUsize::new(1 << 20),
            longest: AtomicUsize::new(9000),
            slow: AtomicBool::new(false),
        })
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.up.store(up, SeqCst);
    }

    pub(crate) fn put(&self, frame: Vec<u8>) {
        self.frames.lock().unwrap().push_back(frame);
        self.came.signal().unwrap();
    }

    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        self.frames.lock().unwrap().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.lock().unwrap().len()
    }
}

/// A port: frames come from one queue and go to another.
pub(crate) struct MemPort {
    pub(crate) input: Arc<FrameQueue>,
    pub(crate) output: Arc<FrameQueue>,
}

impl SwitchPort for MemPort {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        let mut frames = self.input.frames.lock().unwrap();
        while packets.len() < most
            && let Some(len) = frames.front().map(Vec::len)
            && let Some(mut packet) = pool.take_for(len)
        {
            assert!(packet.fill(&frames.pop_front().unwrap()));
            packets.push(packet);
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut sent = Sent::default();
        if self.output.slow.load(SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let mut frames = self.output.frames.lock().unwrap();
        for packet in packets.drain(..) {
            if !self.output.up.load(SeqCst) {
                sent.down += 1;
            } else if packet.bytes().len() > self.output.longest.load(SeqCst) {
                sent.refused += 1;
            } else if frames.len() >= self.output.room.load(SeqCst) {
                sent.full += 1;
            } else {
                sent.packets += 1;
                sent.bytes += packet.bytes().len() as u64;
                frames.push_back(packet.bytes().to_vec());
            }
            pool.give(packet);
        }
        self.output.came.signal().map_err(io::Error::other)?;
        Ok(sent)
    }

    fn link(&mut self) -> bool {
        self.output.up.load(SeqCst)
    }

    fn arm(&mut self) -> bool {
        // Cleared before the look, so that what comes after it wakes.
        let _ = self.input.came.try_clear();
        self.input.len() == 0
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.input.came.as_fd()
    }
}
