//! The XDP socket of one receive queue, with its own UMEM.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use culvert_switch::packet_thread::assert_may_wait;
use culvert_switch::{BUFFER, HEADROOM, Packet, Pool, Sent};
use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING,
    XDP_UMEM_PGOFF_FILL_RING, XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with, sockopt,
};

use super::umem::Umem;
use super::xsk_rings::{Consumer, Producer, XdpDesc};

/// Bytes that the kernel reserves in front of a received frame (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM: usize = 256;
/// Size of the largest chunk: a page.
const MAX_CHUNK: usize = 4096;
/// The largest number of chunks for one frame: a packet of the kernel's has no more fragments.
const MAX_CHUNKS: usize = 16;
/// Bytes of sent frames that the kernel may hold before the interface counts as full.
const SEND_BUFFER: usize = 4 << 20;
/// System calls of one [`Xsk::flush`].
const MAX_SENDS: u32 = 4096;

/// The kernel frees a queue only some time after its former socket was closed: how often to try, and how long to wait.
const MAX_BIND_TRIES: u32 = 100;
const BIND_RETRY: Duration = Duration::from_millis(2);

/// Settings of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct XskConfig {
    /// Index of the interface.
    pub(super) interface: u32,
    /// Number of the receive queue.
    pub(super) queue: u32,
    /// Length of the longest frame.
    pub(super) max_frame: usize,
    /// Number of frames that may wait, a power of two; the same for sending.
    pub(super) slots: u32,
    /// Whether the socket also sends.
    pub(super) sends: bool,
    /// Whether the driver may use the UMEM itself.
    pub(super) zero_copy: bool,
}

/// The socket, its UMEM and its rings.
pub(super) struct Xsk {
    socket: OwnedFd,
    umem: Umem,
    /// Size of a chunk.
    chunk: usize,
    /// Whether a frame may have several chunks (`XDP_USE_SG`).
    multi_buffer: bool,
    /// Whether the driver uses the UMEM itself.
    zero_copy: bool,
    fill: Producer<u64>,
    received: Consumer<XdpDesc>,
    tx: Option<XskTx>,
    /// The kernel's count of dropped frames at the last call of [`take_rx_drops`](Self::take_rx_drops).
    kernel_drops: u64,
    /// Frames that did not fit into a buffer.
    unusable: u64,
}

/// The sending half of a socket.
struct XskTx {
    ring: Producer<XdpDesc>,
    completed: Consumer<u64>,
    /// Chunks that are free.
    free: Vec<u64>,
    /// Frames in the ring that the kernel may not have taken yet.
    unconfirmed: Sent,
    /// Descriptors of those frames.
    unconfirmed_descs: u32,
}

impl Xsk {
    /// Opens a socket and binds it to a queue. It receives nothing before it is in the program's map.
    pub(super) fn open(config: &XskConfig) -> io::Result<Xsk> {
        let single_chunk = config.max_frame <= MAX_CHUNK - KERNEL_HEADROOM;
        let chunk =
            if config.max_frame <= MAX_CHUNK / 2 - KERNEL_HEADROOM { MAX_CHUNK / 2 } else { MAX_CHUNK };
        let slots = config.slots;
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let tx_slots = if config.sends { slots } else { 0 };
        let umem = Umem::new((slots + tx_slots) as usize * chunk)?;
        let (addr, len) = umem.range();
        let flags = XdpUmemRegFlags::empty();
        let registration =
            XdpUmemReg { addr, len, chunk_size: chunk as u32, headroom: 0, flags, tx_metadata_len: 0 };
        sockopt::set_xdp_umem_reg(&socket, registration)?;
        sockopt::set_xdp_umem_fill_ring_size(&socket, slots)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, tx_slots.max(1))?;
        sockopt::set_xdp_rx_ring_size(&socket, slots)?;
        if config.sends {
            sockopt::set_xdp_tx_ring_size(&socket, tx_slots)?;
            sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER)?;
        }
        let offsets = sockopt::xdp_mmap_offsets(&socket)?;
        let fd = socket.as_fd();
        let mut fill = Producer::map(fd, XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, slots)?;
        let completed = Consumer::map(fd, XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, tx_slots.max(1))?;
        let received = Consumer::map(fd, XDP_PGOFF_RX_RING, &offsets.rx, slots)?;
        let chunks = |numbers: std::ops::Range<u32>| numbers.map(move |n| u64::from(n) * chunk as u64);
        for at in chunks(0..slots) {
            let _fits = fill.put(at);
        }
        fill.publish();
        let tx = if config.sends {
            let ring = Producer::map(fd, XDP_PGOFF_TX_RING, &offsets.tx, tx_slots)?;
            let free = chunks(slots..slots + tx_slots).collect();
            Some(XskTx { ring, completed, free, unconfirmed: Sent::default(), unconfirmed_descs: 0 })
        } else {
            None
        };
        let multi_buffer = bind_to(&socket, config, single_chunk)?;
        let zero_copy = sockopt::xdp_options(&socket)?.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(Xsk {
            socket,
            umem,
            chunk,
            multi_buffer,
            zero_copy,
            fill,
            received,
            tx,
            kernel_drops: 0,
            unusable: 0,
        })
    }

    /// Whether the driver uses our memory itself.
    pub(super) fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Receives frames, in order, until there are none or `packets` has `max` of them.
    pub(super) fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) {
        while packets.len() < max {
            let Some((descs, len)) = self.next() else { break };
            let common = len <= BUFFER - HEADROOM;
            let mut packet = pool.take_for(len);
            if packet.is_none() && common {
                // The frame waits. A large one is dropped: it would block those behind it, perhaps for ever.
                break;
            }
            let whole = packet.as_mut().is_some_and(|packet| self.copy(descs, len, packet));
            match packet {
                Some(packet) if whole => packets.push(packet),
                packet => {
                    self.unusable += 1;
                    packet.into_iter().for_each(|packet| pool.give(packet));
                }
            }
            self.release(descs);
        }
        self.fill.publish();
        self.wake_driver();
    }

    /// Number of descriptors and length of the next frame, if it is there.
    fn next(&self) -> Option<(u32, usize)> {
        let (mut len, mut n) = (0, 0);
        loop {
            let desc = self.received.peek(n)?;
            (len, n) = (len + desc.len as usize, n + 1);
            if desc.options & XdpDesc::CONTINUES == 0 {
                return Some((n, len));
            }
        }
    }

    /// Copies the next frame. `false`: it is invalid, or does not fit.
    fn copy(&self, descs: u32, len: usize, packet: &mut Packet) -> bool {
        if len < 14 || !packet.set(0, len) {
            return false;
        }
        let mut rest = packet.bytes_mut();
        for n in 0..descs {
            let Some(desc) = self.received.peek(n) else { return false };
            let Some((part, behind)) = rest.split_at_mut_checked(desc.len as usize) else { return false };
            if !self.umem.read(desc.addr, part) {
                return false;
            }
            rest = behind;
        }
        true
    }

    /// Returns the next frame's chunks to the kernel.
    fn release(&mut self, descs: u32) {
        for n in 0..descs {
            if let Some(desc) = self.received.peek(n) {
                // The fill ring has room for all chunks.
                let _fits = self.fill.put(desc.addr - desc.addr % self.chunk as u64);
            }
        }
        self.received.release(descs);
    }

    /// Wakes a driver that has run out of chunks.
    fn wake_driver(&self) {
        if self.zero_copy && self.fill.needs_wakeup() {
            // An error is reported when the interface is polled.
            let _ = recv(&self.socket, &mut [0u8; 0][..], RecvFlags::DONTWAIT);
        }
    }

    /// Puts a frame, given in two parts, into the transmit ring; [`flush`](Self::flush) sends it.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub(super) fn push(&mut self, frame: [&[u8]; 2], sent: &mut Sent) -> io::Result<()> {
        let len = frame[0].len() + frame[1].len();
        let count = len.div_ceil(self.chunk);
        if count > if self.multi_buffer { MAX_CHUNKS } else { 1 } {
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
        let Some(tx) = &mut self.tx else { return Ok(()) };
        let mut from = 0;
        while from < len {
            let to = len.min(from + self.chunk);
            let Some(addr) = tx.free.pop() else { break };
            let mut place = addr;
            let mut passed = 0;
            for part in frame {
                let range = from.clamp(passed, passed + part.len())..to.clamp(passed, passed + part.len());
                let bytes = &part[range.start - passed..range.end - passed];
                let _within = self.umem.write(place, bytes);
                (place, passed) = (place + bytes.len() as u64, passed + part.len());
            }
            let options = if to < len { XdpDesc::CONTINUES } else { 0 };
            let _fits = tx.ring.put(XdpDesc { addr, len: (to - from) as u32, options });
            tx.unconfirmed_descs += 1;
            from = to;
        }
        tx.unconfirmed.packets += 1;
        tx.unconfirmed.bytes += len as u64;
        Ok(())
    }

    fn has_room(&mut self, count: usize) -> bool {
        let has = |tx: &XskTx| tx.free.len() >= count && tx.ring.room() as usize >= count;
        self.tx.as_mut().is_some_and(|tx| {
            has(tx) || {
                tx.reap();
                has(tx)
            }
        })
    }

    /// Has the kernel send what is in the ring, and counts it. Frames for which the interface has no room yet stay in the
    /// ring, and the next call sends them.
    ///
    /// # Errors
    /// The interface was removed.
    pub(super) fn flush(&mut self, sent: &mut Sent) -> io::Result<()> {
        let Some(tx) = &mut self.tx else { return Ok(()) };
        tx.ring.publish();
        let mut tries = MAX_SENDS;
        while tx.ring.pending() > 0 && (!self.zero_copy || tx.ring.needs_wakeup()) && tries > 0 {
            let before = tx.ring.pending();
            tries -= 1;
            match send(&self.socket, &[], SendFlags::DONTWAIT) {
                // One system call sends a few dozen frames, and returns EAGAIN when there are more.
                Err(Errno::AGAIN) if tx.ring.pending() < before => {}
                // The interface dropped a frame: its queue is full, or it has no carrier.
                Err(Errno::BUSY) => tx.count_drop(sent),
                Err(Errno::INTR) => {}
                Err(Errno::NETDOWN) => {
                    tx.withdraw(!self.zero_copy, sent);
                    return Ok(());
                }
                Err(error @ (Errno::NXIO | Errno::NODEV)) => return Err(error.into()),
                Ok(_) | Err(_) => break,
            }
        }
        tx.count_sent(sent);
        tx.reap();
        Ok(())
    }

    /// Whether frames wait that the interface had no room for. With zero copy the driver takes them by itself.
    pub(super) fn has_pending(&self) -> bool {
        !self.zero_copy && self.tx.as_ref().is_some_and(|tx| tx.ring.pending() > 0)
    }

    /// Prepares to sleep until the socket is readable. `false`: frames are waiting.
    pub(super) fn arm(&mut self) -> bool {
        self.wake_driver();
        self.next().is_none()
    }

    /// Received frames that the kernel or this socket has dropped since the last call.
    pub(super) fn take_rx_drops(&mut self) -> u64 {
        let statistics = sockopt::xdp_statistics(&self.socket);
        let now = statistics.map_or(self.kernel_drops, |c| c.rx_dropped + c.rx_ring_full.unwrap_or(0));
        let before = std::mem::replace(&mut self.kernel_drops, now);
        now.saturating_sub(before) + std::mem::take(&mut self.unusable)
    }

    /// Whether the socket has an error because the interface was removed.
    pub(super) fn is_orphaned(&self) -> bool {
        matches!(sockopt::socket_error(&self.socket), Ok(Err(_)) | Err(_))
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl XskTx {
    /// Takes back the chunks of frames that have been sent.
    fn reap(&mut self) {
        let mut n = 0;
        while let Some(at) = self.completed.peek(n) {
            self.free.push(at);
            n += 1;
        }
        self.completed.release(n);
    }

    /// Counts the frames in the ring as sent: the kernel has taken them.
    fn count_sent(&mut self, sent: &mut Sent) {
        let taken = std::mem::take(&mut self.unconfirmed);
        (sent.packets, sent.bytes) = (sent.packets + taken.packets, sent.bytes + taken.bytes);
        self.unconfirmed_descs = 0;
    }

    /// Counts one frame that the kernel took as dropped. The kernel does not say which one: its bytes stay counted.
    fn count_drop(&mut self, sent: &mut Sent) {
        self.count_sent(sent);
        (sent.packets, sent.full) = (sent.packets.saturating_sub(1), sent.full + 1);
    }

    /// The interface is down: counts the frames that the kernel has not taken. With `remove` also removes them from the
    /// ring, so that they are not sent much later: not with zero copy, where the driver may be reading the ring.
    fn withdraw(&mut self, remove: bool, sent: &mut Sent) {
        sent.down += std::mem::take(&mut self.unconfirmed).packets;
        let descs = std::mem::take(&mut self.unconfirmed_descs);
        for _ in 0..if remove { descs } else { 0 } {
            self.free.extend(self.ring.withdraw().map(|desc| desc.addr));
        }
    }
}

/// Binds the socket; waits while its queue is not free. Returns whether a frame may have several chunks.
fn bind_to(socket: &OwnedFd, config: &XskConfig, single_chunk: bool) -> io::Result<bool> {
    assert_may_wait();
    let common = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
    let copy = if config.zero_copy { SocketAddrXdpFlags::empty() } else { SocketAddrXdpFlags::XDP_COPY };
    // Many drivers with zero copy do not support several chunks (Linux 6.6): asks for them only where frames need them.
    let multi_buffer: &[bool] = if single_chunk { &[false] } else { &[true, false] };
    let mut result = Ok(false);
    for multi_buffer in multi_buffer {
        let sg = if *multi_buffer { SocketAddrXdpFlags::XDP_USE_SG } else { SocketAddrXdpFlags::empty() };
        let address = SocketAddrXdp::new(common | copy | sg, config.interface, config.queue);
        let mut tries = MAX_BIND_TRIES;
        result = loop {
            match bind(socket, &address) {
                Err(Errno::BUSY) if tries > 0 => std::thread::sleep(BIND_RETRY),
                result => break result.map(|()| *multi_buffer),
            }
            tries -= 1;
        };
        if result.is_ok() {
            break;
        }
    }
    result.map_err(io::Error::from)
}
