//! The XDP socket of one receive queue, with memory of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING,
    XDP_UMEM_PGOFF_FILL_RING, XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with, sockopt,
};

use super::rings::{Area, Consumer, Piece, Producer};
use culvert_switch::{BUFFER, HEADROOM, Packet, Pool, Sent};

/// The kernel keeps this much in front of a received frame (`XDP_PACKET_HEADROOM`).
const KERNELS: usize = 256;
/// The largest chunk: a page.
const LARGEST: usize = 4096;
/// The most chunks for one frame: a packet of the kernel's has no more pieces.
const PIECES: usize = 16;
/// Bytes of sent frames that the interface may hold before it counts as full.
const UNDER_WAY: usize = 4 << 20;
/// Refused frames for which one [`Queue::flush`] goes on.
const TRIES: u32 = 4096;

/// The kernel gives a queue free only some time after its socket was closed, by whoever had it before us.
const RELEASE_TRIES: u32 = 100;
const RELEASE_STEP: Duration = Duration::from_millis(2);

/// What a queue is to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Index of the interface, and number of the queue.
    pub(super) interface: u32,
    pub(super) queue: u32,
    /// Length of the longest frame.
    pub(super) longest: usize,
    /// Frames that may wait, a power of two; the same for sending.
    pub(super) slots: u32,
    /// Whether it also sends.
    pub(super) sends: bool,
    pub(super) zero_copy: bool,
}

/// The socket, and everything that it shares with the kernel.
pub(super) struct Queue {
    socket: OwnedFd,
    area: Area,
    chunk: usize,
    /// Whether frames longer than a chunk pass.
    in_pieces: bool,
    /// Whether the driver uses our memory itself.
    zero_copy: bool,
    fill: Producer<u64>,
    received: Consumer<Piece>,
    outgoing: Option<Outgoing>,
    /// What the kernel had lost by its count when it was last asked.
    lost: u64,
    /// Frames that were lost in here.
    unfit: u64,
}

/// What only a socket has that sends.
struct Outgoing {
    ring: Producer<Piece>,
    done: Consumer<u64>,
    free: Vec<u64>,
    /// Frames and pieces that were published since the kernel was last known to have looked.
    fresh: Sent,
    fresh_pieces: u32,
}

impl Queue {
    /// Binds a socket to a queue. Nothing comes to it before it is in the program's map.
    pub(super) fn open(shape: &Shape) -> io::Result<Queue> {
        let whole = shape.longest <= LARGEST - KERNELS;
        let chunk = if shape.longest <= LARGEST / 2 - KERNELS { LARGEST / 2 } else { LARGEST };
        let slots = shape.slots;
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let sent = if shape.sends { slots } else { 0 };
        let area = Area::new((slots + sent) as usize * chunk)?;
        let (addr, len) = area.range();
        let flags = XdpUmemRegFlags::empty();
        let memory =
            XdpUmemReg { addr, len, chunk_size: chunk as u32, headroom: 0, flags, tx_metadata_len: 0 };
        sockopt::set_xdp_umem_reg(&socket, memory)?;
        sockopt::set_xdp_umem_fill_ring_size(&socket, slots)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, sent.max(1))?;
        sockopt::set_xdp_rx_ring_size(&socket, slots)?;
        if shape.sends {
            sockopt::set_xdp_tx_ring_size(&socket, sent)?;
            sockopt::set_socket_send_buffer_size_force(&socket, UNDER_WAY)?;
        }
        let offsets = sockopt::xdp_mmap_offsets(&socket)?;
        let fd = socket.as_fd();
        let mut fill = Producer::map(fd, XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, slots)?;
        let done = Consumer::map(fd, XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, sent.max(1))?;
        let received = Consumer::map(fd, XDP_PGOFF_RX_RING, &offsets.rx, slots)?;
        let chunks = |numbers: std::ops::Range<u32>| numbers.map(move |n| u64::from(n) * chunk as u64);
        for at in chunks(0..slots) {
            let _fits = fill.put(at);
        }
        fill.publish();
        let outgoing = if shape.sends {
            let ring = Producer::map(fd, XDP_PGOFF_TX_RING, &offsets.tx, sent)?;
            let free = chunks(slots..slots + sent).collect();
            Some(Outgoing { ring, done, free, fresh: Sent::default(), fresh_pieces: 0 })
        } else {
            None
        };
        let in_pieces = bind_to(&socket, shape, whole)?;
        let zero_copy = sockopt::xdp_options(&socket)?.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(Queue { socket, area, chunk, in_pieces, zero_copy, fill, received, outgoing, lost: 0, unfit: 0 })
    }

    /// Whether the driver uses our memory itself.
    pub(super) fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Takes frames, in order, until there are none or `packets` has `most` of them.
    pub(super) fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) {
        while packets.len() < most {
            let Some((pieces, len)) = self.next() else { break };
            let common = len <= BUFFER - HEADROOM;
            let mut packet = pool.take_for(len);
            if packet.is_none() && common {
                // It waits. One that is large would have all that are behind it wait for a buffer that may never come.
                break;
            }
            let whole = packet.as_mut().is_some_and(|packet| self.copy(pieces, len, packet));
            match packet {
                Some(packet) if whole => packets.push(packet),
                packet => {
                    self.unfit += 1;
                    packet.into_iter().for_each(|packet| pool.give(packet));
                }
            }
            self.give_back(pieces);
        }
        self.fill.publish();
        self.wake_driver();
    }

    /// Pieces and length of the next frame, if it is there.
    fn next(&self) -> Option<(u32, usize)> {
        let (mut len, mut n) = (0, 0);
        loop {
            let piece = self.received.look(n)?;
            (len, n) = (len + piece.len as usize, n + 1);
            if piece.options & Piece::CONTINUES == 0 {
                return Some((n, len));
            }
        }
    }

    /// Copies the next frame. `false`: there is no such frame.
    fn copy(&self, pieces: u32, len: usize, packet: &mut Packet) -> bool {
        if len < 14 || !packet.set(0, len) {
            return false;
        }
        let mut rest = packet.bytes_mut();
        for n in 0..pieces {
            let Some(piece) = self.received.look(n) else { return false };
            let Some((part, behind)) = rest.split_at_mut_checked(piece.len as usize) else { return false };
            if !self.area.read(piece.at, part) {
                return false;
            }
            rest = behind;
        }
        true
    }

    /// Gives the next frame's chunks back to the kernel.
    fn give_back(&mut self, pieces: u32) {
        for n in 0..pieces {
            if let Some(piece) = self.received.look(n) {
                // There is room for all chunks that there are.
                let _fits = self.fill.put(piece.at - piece.at % self.chunk as u64);
            }
        }
        self.received.release(pieces);
    }

    /// Tells a driver that has run out of chunks that there are some.
    fn wake_driver(&self) {
        if self.zero_copy && self.fill.needs_wakeup() {
            // What is wrong, if something is, shows when the interface is looked at.
            let _ = recv(&self.socket, &mut [0u8; 0][..], RecvFlags::DONTWAIT);
        }
    }

    /// Puts a frame, given in two pieces, into the ring, to leave with [`flush`](Self::flush).
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub(super) fn push(&mut self, frame: [&[u8]; 2], sent: &mut Sent) -> io::Result<()> {
        let len = frame[0].len() + frame[1].len();
        let count = len.div_ceil(self.chunk);
        if count > if self.in_pieces { PIECES } else { 1 } {
            sent.refused += 1;
            return Ok(());
        }
        if !self.has_room(count) {
            self.flush(sent)?;
            if !self.has_room(count) {
                sent.full += 1;
                return Ok(());
            }
        }
        let Some(out) = &mut self.outgoing else { return Ok(()) };
        let mut from = 0;
        while from < len {
            let to = len.min(from + self.chunk);
            let Some(at) = out.free.pop() else { break };
            let mut place = at;
            let mut passed = 0;
            for piece in frame {
                let range = from.clamp(passed, passed + piece.len())..to.clamp(passed, passed + piece.len());
                let part = &piece[range.start - passed..range.end - passed];
                let _within = self.area.write(place, part);
                (place, passed) = (place + part.len() as u64, passed + piece.len());
            }
            let options = if to < len { Piece::CONTINUES } else { 0 };
            let _fits = out.ring.put(Piece { at, len: (to - from) as u32, options });
            out.fresh_pieces += 1;
            from = to;
        }
        out.fresh.packets += 1;
        out.fresh.bytes += len as u64;
        Ok(())
    }

    fn has_room(&mut self, count: usize) -> bool {
        let has = |out: &Outgoing| out.free.len() >= count && out.ring.room() as usize >= count;
        self.outgoing.as_mut().is_some_and(|out| {
            has(out) || {
                out.reap();
                has(out)
            }
        })
    }

    /// Has the kernel send what is in the ring, and counts it. What the interface has no room for yet stays there, and is
    /// sent with the next call.
    ///
    /// # Errors
    /// The socket is bound to nothing any more: the interface is gone.
    pub(super) fn flush(&mut self, sent: &mut Sent) -> io::Result<()> {
        let Some(out) = &mut self.outgoing else { return Ok(()) };
        out.ring.publish();
        let mut tries = TRIES;
        while out.ring.waiting() > 0 && (!self.zero_copy || out.ring.needs_wakeup()) && tries > 0 {
            let before = out.ring.waiting();
            tries -= 1;
            match send(&self.socket, &[], SendFlags::DONTWAIT) {
                // A system call sends a few dozen, and has nothing to say when there are more of them.
                Err(Errno::AGAIN) if out.ring.waiting() < before => {}
                // The interface did not take one: of an interface without a carrier that is what is said.
                Err(Errno::BUSY) => out.dropped(sent),
                Err(Errno::INTR) => {}
                Err(Errno::NETDOWN) => {
                    out.take_back(!self.zero_copy, sent);
                    return Ok(());
                }
                Err(error @ (Errno::NXIO | Errno::NODEV)) => return Err(error.into()),
                Ok(_) | Err(_) => break,
            }
        }
        out.seen(sent);
        out.reap();
        Ok(())
    }

    /// Whether frames wait that the interface had no room for. A driver that uses our memory takes them by itself.
    pub(super) fn waits(&self) -> bool {
        !self.zero_copy && self.outgoing.as_ref().is_some_and(|out| out.ring.waiting() > 0)
    }

    /// Gets ready for a sleep. `false`: frames have come.
    pub(super) fn arm(&mut self) -> bool {
        self.wake_driver();
        self.next().is_none()
    }

    /// Frames that the kernel, or we, have lost since this was asked last.
    pub(super) fn take_rx_drops(&mut self) -> u64 {
        let counted = sockopt::xdp_statistics(&self.socket);
        let now = counted.map_or(self.lost, |c| c.rx_dropped + c.rx_ring_full.unwrap_or(0));
        let before = std::mem::replace(&mut self.lost, now);
        now.saturating_sub(before) + std::mem::take(&mut self.unfit)
    }

    /// Whether the kernel has told that the interface is gone.
    pub(super) fn is_orphaned(&self) -> bool {
        matches!(sockopt::socket_error(&self.socket), Ok(Err(_)) | Err(_))
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Outgoing {
    /// Takes chunks back whose frames have left.
    fn reap(&mut self) {
        let mut n = 0;
        while let Some(at) = self.done.look(n) {
            self.free.push(at);
            n += 1;
        }
        self.done.release(n);
    }

    /// The kernel has seen what was published: it is sent, or under way.
    fn seen(&mut self, sent: &mut Sent) {
        let fresh = std::mem::take(&mut self.fresh);
        (sent.packets, sent.bytes) = (sent.packets + fresh.packets, sent.bytes + fresh.bytes);
        self.fresh_pieces = 0;
    }

    /// One of those that the kernel has seen did not leave. It does not say which: the bytes stay counted.
    fn dropped(&mut self, sent: &mut Sent) {
        self.seen(sent);
        (sent.packets, sent.full) = (sent.packets.saturating_sub(1), sent.full + 1);
    }

    /// The interface is down: what the kernel has not seen does not leave. With `withdraw` it is also taken out of the
    /// ring, so that it does not leave much later: that a driver which uses the ring by itself has not seen it is not sure.
    fn take_back(&mut self, withdraw: bool, sent: &mut Sent) {
        sent.down += std::mem::take(&mut self.fresh).packets;
        let pieces = std::mem::take(&mut self.fresh_pieces);
        for _ in 0..if withdraw { pieces } else { 0 } {
            self.free.extend(self.ring.withdraw().map(|piece| piece.at));
        }
    }
}

/// Binds the socket. Whether frames in pieces pass.
fn bind_to(socket: &OwnedFd, shape: &Shape, whole: bool) -> io::Result<bool> {
    let common = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
    let copy = if shape.zero_copy { SocketAddrXdpFlags::empty() } else { SocketAddrXdpFlags::XDP_COPY };
    // Many drivers that use our memory themselves do not know frames in pieces (since Linux 6.6): they are not asked
    // for where they are not needed.
    let pieces: &[bool] = if whole { &[false] } else { &[true, false] };
    let mut result = Ok(false);
    for in_pieces in pieces {
        let sg = if *in_pieces { SocketAddrXdpFlags::XDP_USE_SG } else { SocketAddrXdpFlags::empty() };
        let address = SocketAddrXdp::new(common | copy | sg, shape.interface, shape.queue);
        let mut tries = RELEASE_TRIES;
        result = loop {
            match bind(socket, &address) {
                Err(Errno::BUSY) if tries > 0 => std::thread::sleep(RELEASE_STEP),
                result => break result.map(|()| *in_pieces),
            }
            tries -= 1;
        };
        if result.is_ok() {
            break;
        }
    }
    result.map_err(io::Error::from)
}
