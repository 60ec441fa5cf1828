//! A queue of a Culvert NIC: a VMQ into which the NIC steers the frames for one vport, and the way back through its queue 0.
//!
//! The NIC looks up, encapsulates and steers. What is sent here it treats as if it had come from the vport's machine on a
//! VF, which fills checksums and sends no frame longer than its MTU: so large frames are cut here.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use culvert_abi::command::Op;
use culvert_packet::{Gso, Reason, VportId};
use culvert_pf::Error;

use crate::switch::segment::{MAX_HEADERS, Segmentation};
use crate::switch::{BURST, Packet, Pool, Sent, SwitchPort};
use crate::target::{OffloadTarget, PacketSource};

/// The queue.
///
/// The NIC takes as much as it has room for. What is sent beyond that waits here, up to a burst: a frame that is cut may
/// have more segments than there is ever room for, and who wants to lose nothing sends nothing while
/// [something waits](Self::is_held_up).
pub struct NicQueue {
    nic: Arc<dyn OffloadTarget>,
    vmq: Box<dyn PacketSource>,
    vport: VportId,
    /// What waits, in order.
    waiting: VecDeque<Packet>,
    /// Segments of the first one that the NIC has.
    gone: usize,
    /// Whether interrupts are asked for.
    armed: bool,
    /// Frames that were too long for a buffer.
    unfit: u64,
}

impl NicQueue {
    /// Sets VMQ `n` up for the frames of `vport`, which the NIC's filters steer there.
    ///
    /// # Errors
    /// There is no such queue, or it does not run.
    pub fn open(nic: &Arc<dyn OffloadTarget>, vport: VportId, n: u16) -> Result<Self, Error> {
        let (vmq, waiting) = (nic.vmq(n)?, VecDeque::with_capacity(BURST));
        Ok(NicQueue { nic: Arc::clone(nic), vmq, vport, waiting, gone: 0, armed: false, unfit: 0 })
    }

    /// Whether something waits until the NIC has room.
    pub fn is_held_up(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends what waits, as far as there is room now.
    ///
    /// # Errors
    /// The NIC is lost.
    pub fn go_on(&mut self, pool: &mut Pool) -> io::Result<Sent> {
        let mut sent = Sent::default();
        if self.waiting.is_empty() {
            return Ok(sent);
        }
        let mut result = Ok(());
        while let Some(mut packet) = self.waiting.pop_front() {
            match self.offer(&mut packet, &mut sent) {
                Ok(true) => {
                    self.gone = 0;
                    pool.give(packet);
                }
                Ok(false) => {
                    self.waiting.push_front(packet);
                    break;
                }
                Err(error) => {
                    self.waiting.push_front(packet);
                    result = Err(io::Error::other(error));
                    break;
                }
            }
        }
        result.and_then(|()| self.nic.show_offered().map_err(io::Error::other))?;
        Ok(sent)
    }

    /// Offers a frame, or what is left of its segments. `false`: there is no room for all of it.
    fn offer(&mut self, packet: &mut Packet, sent: &mut Sent) -> Result<bool, Error> {
        let offload = packet.offload;
        if offload.gso == Gso::None {
            // One that nobody could complete is treated as any machine's whose checksum is wrong.
            let _filled = offload.fill_checksum(packet.bytes_mut());
            return self.put([packet.bytes(), &[]], sent);
        }
        let Some(cut) = Segmentation::of(packet.bytes(), &offload) else {
            sent.refused += 1;
            return Ok(true);
        };
        let mut header = [0; MAX_HEADERS];
        while self.gone < cut.count() {
            let (len, payload) = cut.segment(packet.bytes(), self.gone, &mut header);
            if !self.put([&header[..len], &packet.bytes()[payload]], sent)? {
                return Ok(false);
            }
            self.gone += 1;
        }
        Ok(true)
    }

    fn put(&self, parts: [&[u8]; 2], sent: &mut Sent) -> Result<bool, Error> {
        match self.nic.offer(self.vport, parts) {
            Ok(true) => {
                sent.packets += 1;
                sent.bytes += (parts[0].len() + parts[1].len()) as u64;
                Ok(true)
            }
            Err(Error::TooLong { .. }) => {
                sent.refused += 1;
                Ok(true)
            }
            other => other,
        }
    }

    /// Has the NIC count frames of the vport that ended at the host. `false`: it cannot now.
    pub fn count(&self, reason: Reason, frames: u32) -> bool {
        // What is wrong with the queue is found when frames are sent.
        self.nic.offer_drops(self.vport, reason, frames).unwrap_or(false)
    }

    /// Gives up what waits. How many frames that were.
    pub fn give_up(&mut self, pool: &mut Pool) -> u64 {
        self.gone = 0;
        self.waiting.drain(..).map(|packet| pool.give(packet)).count() as u64
    }
}

impl SwitchPort for NicQueue {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        if std::mem::take(&mut self.armed) {
            self.vmq.disarm();
        }
        let mut result = Ok(());
        while packets.len() < most {
            let Some(mut packet) = pool.take() else { break };
            match self.vmq.pop_into(packet.room()) {
                Ok(Some((entry, len))) if entry.op == Op::Transmit as u8 => {
                    // A frame of which the board's buffer holds only a part tells how long it was.
                    let whole = len >= 14 && usize::from(entry.original_len) <= len;
                    if whole && packet.set(0, len) {
                        packets.push(packet);
                    } else {
                        self.unfit += 1;
                        pool.give(packet);
                    }
                }
                // Nothing else is steered here.
                Ok(Some(_)) => pool.give(packet),
                Ok(None) => {
                    pool.give(packet);
                    break;
                }
                Err(error) => {
                    pool.give(packet);
                    result = Err(error);
                    break;
                }
            }
        }
        result.and_then(|()| self.vmq.repost()).map_err(io::Error::other)
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut full = 0;
        for packet in packets.drain(..) {
            if self.waiting.len() < BURST {
                self.waiting.push_back(packet);
            } else {
                full += 1;
                pool.give(packet);
            }
        }
        let sent = self.go_on(pool)?;
        Ok(Sent { full: sent.full + full, ..sent })
    }

    fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.unfit)
    }

    fn link(&mut self) -> bool {
        self.nic.alive()
    }

    fn arm(&mut self) -> bool {
        self.armed = self.vmq.arm();
        self.armed
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.vmq.fd()
    }
}
