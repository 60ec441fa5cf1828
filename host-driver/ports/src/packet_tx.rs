//! Sends frames and segments on a packet socket, many with one system call.
//!
//! A transmit ring in shared memory (`PACKET_TX_RING`) saves no system call over sendmmsg(2), and copies here instead of in
//! the kernel: over a veth both took the same time for frames of 64, 512 and 1450 bytes, within 3 %.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use culvert_packet::segment::MAX_HEADERS;
use culvert_switch::{Packet, Pool, Sent};
use rustix::io::Errno;

use crate::interface_state::InterfaceState;
use crate::sys::{MAX_MESSAGES, PacketSocket};
use crate::tx_offload::{TxFrames, TxOffloads};

/// A frame of the next system call: the headers of a segment, if it is one, and a range of a packet.
struct Message {
    header_len: usize,
    packet: usize,
    range: Range<usize>,
}

/// A packet socket to send with.
pub(crate) struct PacketTx {
    socket: PacketSocket,
    interface: Arc<InterfaceState>,
    messages: Vec<Message>,
    headers: Box<[[u8; MAX_HEADERS]; MAX_MESSAGES]>,
}

impl PacketTx {
    /// Sends with a bound socket.
    pub(crate) fn new(socket: PacketSocket, interface: Arc<InterfaceState>) -> Self {
        let messages = Vec::with_capacity(MAX_MESSAGES);
        PacketTx { socket, interface, messages, headers: Box::new([[0; MAX_HEADERS]; MAX_MESSAGES]) }
    }

    /// Sends packets in order, and returns their buffers to the pool.
    ///
    /// # Errors
    /// The interface was removed.
    pub(crate) fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut sent = Sent::default();
        let mut result = Ok(());
        for n in 0..packets.len() {
            result = result.and_then(|()| self.add(packets, n, &mut sent));
        }
        result = result.and_then(|()| self.flush(packets, &mut sent));
        self.messages.clear();
        packets.drain(..).for_each(|packet| pool.give(packet));
        result.map(|()| sent)
    }

    fn add(&mut self, packets: &mut [Packet], n: usize, sent: &mut Sent) -> io::Result<()> {
        match TxFrames::of(&mut packets[n], TxOffloads::NONE) {
            TxFrames::Whole { .. } => {
                let range = 0..packets[n].bytes().len();
                self.push(Message { header_len: 0, packet: n, range }, packets, sent)
            }
            TxFrames::Segments(segments) => {
                for segment in 0..segments.count() {
                    let header = &mut self.headers[self.messages.len()];
                    let (header_len, range) = segments.segment(packets[n].bytes(), segment, header);
                    self.push(Message { header_len, packet: n, range }, packets, sent)?;
                }
                Ok(())
            }
            TxFrames::BadChecksum | TxFrames::BadSegmentation => {
                sent.refused += 1;
                Ok(())
            }
        }
    }

    /// Adds a message, and sends all when there are [`MAX_MESSAGES`]: there are fewer before and after.
    fn push(&mut self, message: Message, packets: &[Packet], sent: &mut Sent) -> io::Result<()> {
        self.messages.push(message);
        if self.messages.len() == MAX_MESSAGES { self.flush(packets, sent) } else { Ok(()) }
    }

    fn flush(&mut self, packets: &[Packet], sent: &mut Sent) -> io::Result<()> {
        let frames: [[IoSlice<'_>; 2]; MAX_MESSAGES] = std::array::from_fn(|n| {
            let message = self.messages.get(n);
            let header = message.and_then(|m| self.headers[n].get(..m.header_len));
            let payload = message.and_then(|m| packets.get(m.packet)?.bytes().get(m.range.clone()));
            [header, payload].map(|bytes| IoSlice::new(bytes.unwrap_or_default()))
        });
        let mut left = frames.get(..self.messages.len()).unwrap_or_default();
        while let Some((first, others)) = left.split_first() {
            let count = left.len() as u64;
            match self.socket.send_each(left) {
                // An error is the first frame's: none was sent.
                Ok(n) => {
                    let (done, rest) = left.split_at(n.clamp(1, left.len()));
                    sent.packets += done.len() as u64;
                    sent.bytes += done.iter().flatten().map(|part| part.len() as u64).sum::<u64>();
                    left = rest;
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => {
                        sent.full += count;
                        break;
                    }
                    // A missing carrier or a full queue.
                    Some(Errno::NOBUFS) if !self.interface.has_carrier() => {
                        sent.down += count;
                        break;
                    }
                    Some(Errno::NETDOWN) => {
                        sent.down += count;
                        break;
                    }
                    Some(Errno::NOBUFS | Errno::NOMEM) => {
                        sent.full += 1;
                        left = others;
                    }
                    Some(Errno::NXIO | Errno::NODEV) => return Err(error),
                    _ => {
                        tracing::trace!(len = first.len(), %error, "the kernel refused a frame");
                        sent.refused += 1;
                        left = others;
                    }
                },
            }
        }
        self.messages.clear();
        Ok(())
    }
}
