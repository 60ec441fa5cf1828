//! A queue of a Culvert NIC as a port: a VMQ for the frames to one vport, and the NIC's queue 0 for its frames to the NIC.
//!
//! The NIC looks up, encapsulates and steers. It treats frames of this port like those of a VF, which fills checksums and
//! sends no frame longer than its MTU. Large frames are therefore segmented here.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use culvert_packet::{Gso, Reason, VportId};

use culvert_offload::{Error, OffloadNic, VmqQueue};
use culvert_packet::segment::{MAX_HEADERS, Segmentation};
use culvert_switch::{BURST, Packet, Pool, Sent, SwitchPort};

/// A VMQ and the way back.
///
/// Frames that the NIC has no room for wait in a backlog of up to a burst, because a large frame may have more segments
/// than the NIC ever has room for. A caller that wants to lose nothing sends nothing while there
/// [is a backlog](Self::is_backlogged).
pub struct NicQueue {
    nic: Arc<dyn OffloadNic>,
    vmq: Box<dyn VmqQueue>,
    vport: VportId,
    /// Frames that wait for room, in order.
    backlog: VecDeque<Packet>,
    /// Segments of the first one that the NIC already has.
    segments_sent: usize,
    /// Whether interrupts are asked for.
    armed: bool,
    /// Frames that were too long for a buffer.
    truncated: u64,
}

impl NicQueue {
    /// Sets VMQ `n` up for the frames of `vport`, which the NIC's filters steer there.
    ///
    /// # Errors
    /// There is no such queue, or it does not run.
    pub fn open(nic: &Arc<dyn OffloadNic>, vport: VportId, n: u16) -> Result<Self, Error> {
        let (vmq, backlog) = (nic.vmq(n)?, VecDeque::with_capacity(BURST));
        Ok(NicQueue {
            nic: Arc::clone(nic),
            vmq,
            vport,
            backlog,
            segments_sent: 0,
            armed: false,
            truncated: 0,
        })
    }

    /// Whether frames wait until the NIC has room.
    pub fn is_backlogged(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Sends waiting frames while the NIC has room.
    ///
    /// # Errors
    /// The NIC is lost.
    pub fn send_backlog(&mut self, pool: &mut Pool) -> io::Result<Sent> {
        let mut sent = Sent::default();
        if self.backlog.is_empty() {
            return Ok(sent);
        }
        let mut result = Ok(());
        while let Some(mut packet) = self.backlog.pop_front() {
            match self.enqueue(&mut packet, &mut sent) {
                Ok(true) => {
                    self.segments_sent = 0;
                    pool.give(packet);
                }
                Ok(false) => {
                    self.backlog.push_front(packet);
                    break;
                }
                Err(error) => {
                    self.backlog.push_front(packet);
                    result = Err(io::Error::other(error));
                    break;
                }
            }
        }
        result.and_then(|()| self.nic.doorbell().map_err(io::Error::other))?;
        Ok(sent)
    }

    /// Enqueues a frame, or its remaining segments. `false`: the NIC has no room for all of them.
    fn enqueue(&mut self, packet: &mut Packet, sent: &mut Sent) -> Result<bool, Error> {
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
        while self.segments_sent < cut.count() {
            let (len, payload) = cut.segment(packet.bytes(), self.segments_sent, &mut header);
            if !self.put([&header[..len], &packet.bytes()[payload]], sent)? {
                return Ok(false);
            }
            self.segments_sent += 1;
        }
        Ok(true)
    }

    fn put(&self, parts: [&[u8]; 2], sent: &mut Sent) -> Result<bool, Error> {
        match self.nic.enqueue(self.vport, parts) {
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
        self.nic.enqueue_drops(self.vport, reason, frames).unwrap_or(false)
    }

    /// Drops the waiting frames. Returns how many there were.
    pub fn drop_backlog(&mut self, pool: &mut Pool) -> u64 {
        self.segments_sent = 0;
        self.backlog.drain(..).map(|packet| pool.give(packet)).count() as u64
    }
}

impl SwitchPort for NicQueue {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
        if std::mem::take(&mut self.armed) {
            self.vmq.disarm();
        }
        let mut result = Ok(());
        while packets.len() < max {
            let Some(mut packet) = pool.take() else { break };
            match self.vmq.pop(packet.room()) {
                Ok(Some(frame)) => {
                    if frame.complete && packet.set(0, frame.len) {
                        packets.push(packet);
                    } else {
                        self.truncated += 1;
                        pool.give(packet);
                    }
                }
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
            if self.backlog.len() < BURST {
                self.backlog.push_back(packet);
            } else {
                full += 1;
                pool.give(packet);
            }
        }
        let sent = self.send_backlog(pool)?;
        Ok(Sent { full: sent.full + full, ..sent })
    }

    fn take_rx_drops(&mut self) -> u64 {
        std::mem::take(&mut self.truncated)
    }

    fn link(&mut self) -> bool {
        self.nic.is_alive()
    }

    fn arm(&mut self) -> bool {
        self.armed = self.vmq.arm();
        self.armed
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.vmq.fd()
    }
}
