//! A vport of a Culvert NIC as a port: receives from a VMQ, and sends through PF queue 0.
//!
//! The NIC looks up, encapsulates and steers. It expects complete frames up to the MTU, as a VF sends them. So this port
//! completes checksums and segments large packets.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use culvert_offload::{Error, OffloadNic, VmqQueue};
use culvert_packet::segment::MAX_HEADERS;
use culvert_packet::{Reason, VportId};
use culvert_switch::{BURST, Packet, Pool, Sent, SwitchPort};

use crate::tx_offload::{TxFrames, TxOffloads};

/// Frames that are enqueued at a time: all vports share the NIC's queue, and large packets have many segments.
const MAX_FRAMES: u64 = 64;

/// A VMQ, and the PF's transmit queue for the same vport.
///
/// Packets for which the NIC has no room wait in a backlog of up to a burst, because a large packet may have more segments
/// than the NIC's queue has room for. A caller that must not lose packets sends none while there
/// [is a backlog](Self::is_backlogged).
pub struct NicQueue {
    nic: Arc<dyn OffloadNic>,
    vmq: Box<dyn VmqQueue>,
    vport: VportId,
    /// Packets that wait for room, in order.
    backlog: VecDeque<Packet>,
    /// Segments of the first packet that were already sent.
    segments_sent: usize,
    /// Whether the VMQ's interrupt is enabled.
    armed: bool,
    /// Received frames that were too long for a buffer.
    truncated: u64,
}

impl NicQueue {
    /// Opens VMQ `n`, into which the NIC's filters steer the frames of `vport`.
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

    /// Whether packets wait until the NIC has room.
    pub fn is_backlogged(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Sends waiting packets while the NIC has room, up to 64 frames: a packet's other segments wait for the next call.
    ///
    /// # Errors
    /// The NIC is lost.
    pub fn send_backlog(&mut self, pool: &mut Pool) -> io::Result<Sent> {
        let mut sent = Sent::default();
        if self.backlog.is_empty() {
            return Ok(sent);
        }
        let mut result = Ok(());
        while sent.packets < MAX_FRAMES
            && let Some(mut packet) = self.backlog.pop_front()
        {
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

    /// Enqueues a packet, or its remaining segments. `false`: not all of them yet.
    fn enqueue(&mut self, packet: &mut Packet, sent: &mut Sent) -> Result<bool, Error> {
        let segments = match TxFrames::of(packet, TxOffloads::NONE) {
            // A frame whose checksum cannot be completed is sent like any with a wrong checksum.
            TxFrames::Whole { .. } | TxFrames::BadChecksum => return self.put([packet.bytes(), &[]], sent),
            TxFrames::Segments(segments) => segments,
            TxFrames::BadSegmentation => {
                sent.refused += 1;
                return Ok(true);
            }
        };
        let mut header = [0; MAX_HEADERS];
        while self.segments_sent < segments.count() {
            if sent.packets >= MAX_FRAMES {
                return Ok(false);
            }
            let (len, payload) = segments.segment(packet.bytes(), self.segments_sent, &mut header);
            if !self.put([&header[..len], &packet.bytes()[payload]], sent)? {
                return Ok(false);
            }
            self.segments_sent += 1;
        }
        Ok(true)
    }

    /// Enqueues a frame. `false`: the NIC has no room.
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

    /// Has the NIC count frames of the vport that the host dropped. `false`: the queue has no room now.
    pub fn count(&self, reason: Reason, frames: u32) -> bool {
        // An error of the queue is reported when packets are sent.
        self.nic.enqueue_drops(self.vport, reason, frames).unwrap_or(false)
    }

    /// Drops the waiting packets. Returns their number.
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
