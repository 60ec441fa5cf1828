//! XDP sockets of an interface as a port.
//!
//! * Each queue's socket has its own UMEM, and a frame is copied once between it and a packet's buffer. Packet buffers are
//!   not shared with the kernel: all ports use the pool, the kernel may keep a buffer as long as it likes, and two sides
//!   would access its bytes. Over a veth, receiving a frame of 1,450 bytes costs 0.05 to 0.1 us with the copy, and sending
//!   one 1.6 to 2.1 us, nearly all of it the kernel's (with a packet socket 2.6 to 2.9). Where the driver uses the UMEM
//!   itself (zero copy), this copy is the only one.
//! * An XDP socket gets a frame's bytes and no offloads. So large frames are not received. The other end of a veth segments
//!   its own as long as a program is attached here (the kernel turns its segmentation off), and leaves their checksums
//!   partial, which are [completed](super::partial_checksum). Where the driver does not run programs
//!   ([`is_generic`](AfXdp::is_generic)) the kernel does, after it has merged received frames (GRO): merged frames are longer
//!   than a chunk, and are dropped and counted, so turn GRO off there (`ethtool -K eth0 gro off`). A VLAN tag that a NIC has
//!   removed from a frame is lost.
//! * The port serves all receive queues that the driver reports (ethtool's channels), and sends on the first one, in order.
//!   Several workers may each have a [part](AfXdpParts) of them.
//!
//! Needs Linux 5.11, for frames larger than a page 6.6, and `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_BPF` and `CAP_PERFMON`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use culvert_switch::packet_thread::assert_may_wait;
use culvert_switch::{Packet, Pool, PortMonitor, Sent, SwitchPort};
use rustix::event::epoll;
use rustix::io::Errno;

use super::bpf::Mode;
use super::partial_checksum;
use super::redirect::{AfXdpParts, Redirect};
use super::xsk::{Xsk, XskConfig};
use crate::filter::Filter;
use crate::interface_state::{InterfaceMonitor, InterfaceState};
use crate::sys::PacketSocket;
use crate::tx_offload::{TxFrame, TxOffloads, for_each_frame};

/// Length of an Ethernet header, and of a VLAN tag.
const ETHERNET: usize = 14;
const TAG: usize = 4;
/// The largest number of frames that may wait in a queue.
const MAX_SLOTS: usize = 1 << 15;

/// How an interface is used.
#[derive(Clone, Debug)]
pub struct AfXdpOptions {
    /// The frames that are received. Control traffic is received, and kept from the kernel, only if it concerns the
    /// provider address: ICMP to it, and ARP or neighbour discovery about it.
    pub filter: Filter,
    /// Also receives frames for MACs that the interface does not have.
    pub promiscuous: bool,
    /// Has the driver use the UMEM itself, where it can.
    pub zero_copy: bool,
    /// Number of frames that may wait in each receive queue, and in the transmit queue: rounded up to a power of two. Each
    /// takes 2 KiB, or 4 KiB where the MTU is more than 1,774 bytes.
    pub slots: usize,
}

impl Default for AfXdpOptions {
    /// All frames, promiscuous, with zero copy.
    fn default() -> Self {
        AfXdpOptions { filter: Filter::Everything, promiscuous: true, zero_copy: true, slots: 2048 }
    }
}

/// XDP sockets as a port.
pub struct AfXdp {
    /// The program on the interface: its last owner detaches it before it closes its sockets.
    redirect: Arc<Redirect>,
    /// One for each receive queue. The first one sends.
    sockets: Vec<Xsk>,
    /// The socket that is read first, to be fair.
    next: usize,
    /// Readable when one of the sockets is.
    readable: OwnedFd,
    /// Keeps the interface promiscuous.
    _interface: PacketSocket,
    /// The interface, as the monitor sees it.
    state: Arc<InterfaceState>,
    /// Until port control takes it.
    monitor: Option<InterfaceMonitor>,
    mtu: usize,
    /// The largest MTU that the chunks have room for.
    max_mtu: usize,
    /// Results of frames that left after the call of `send` that they belong to.
    late: Sent,
    /// The interface was removed, or has changed so that the port must be reopened.
    broken: bool,
}

impl AfXdp {
    /// Opens XDP sockets for all receive queues of an interface.
    ///
    /// ```no_run
    /// use culvert_switch::Opener;
    /// use culvert_ports::{AfXdp, AfXdpOptions};
    ///
    /// let open: Opener = Box::new(|| Ok(Box::new(AfXdp::open("eth0", &AfXdpOptions::default())?)));
    /// ```
    ///
    /// # Errors
    /// There is no such interface, the process lacks a capability, or another XDP program is attached to the interface.
    pub fn open(interface: &str, options: &AfXdpOptions) -> io::Result<AfXdp> {
        Self::open_part(interface, options, &AfXdpParts::new(1), 0)
    }

    /// Opens XDP sockets for one part of an interface's receive queues.
    ///
    /// # Errors
    /// As [`open`](Self::open), or this part has no queue.
    pub fn open_part(
        interface: &str,
        options: &AfXdpOptions,
        parts: &AfXdpParts,
        part: u32,
    ) -> io::Result<AfXdp> {
        // Without a protocol this socket receives no frames.
        let socket = PacketSocket::open(interface)?;
        let (state, monitor) = InterfaceMonitor::new(&socket)?;
        let (index, mtu, count) = (socket.index(), state.mtu(), state.receive_queues());
        let redirect = parts.redirect(index, count, &options.filter)?;
        if redirect.mode == Mode::Generic {
            tracing::warn!(
                interface,
                "the driver does not run XDP programs: receiving is slow; turn GRO off"
            );
        }
        let slots = options.slots.clamp(1, MAX_SLOTS).next_power_of_two() as u32;
        let readable = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut sockets = Vec::new();
        for queue in parts.queues_of(part, count) {
            let (max_frame, zero_copy, sends) = (mtu + ETHERNET + TAG, options.zero_copy, sockets.is_empty());
            let config = XskConfig { interface: index, queue, max_frame, slots, sends, zero_copy };
            let opened = Xsk::open(&config).map_err(|error| {
                io::Error::new(error.kind(), format!("an XDP socket for receive queue {queue}: {error}"))
            })?;
            redirect.insert(queue, opened.as_fd())?;
            epoll::add(&readable, &opened, epoll::EventData::new_u64(queue.into()), epoll::EventFlags::IN)?;
            sockets.push(opened);
        }
        if sockets.is_empty() {
            let why = format!("{interface} has {count} receive queues, and none for worker {part}");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        if options.promiscuous {
            socket.set_promiscuous()?;
        }
        Ok(AfXdp {
            redirect,
            sockets,
            next: 0,
            readable,
            _interface: socket,
            state,
            monitor: Some(monitor),
            mtu,
            max_mtu: mtu,
            late: Sent::default(),
            broken: false,
        })
    }

    /// Whether the kernel runs the program because the driver cannot, after it has allocated a buffer for each frame.
    pub fn is_generic(&self) -> bool {
        self.redirect.mode == Mode::Generic
    }

    /// Whether the driver uses the UMEM itself.
    pub fn is_zero_copy(&self) -> bool {
        self.sockets.iter().all(Xsk::is_zero_copy)
    }

    /// The number of an interface's receive queues.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn receive_queues(interface: &str) -> io::Result<u32> {
        PacketSocket::open(interface)?.receive_queues()
    }

    /// The number of receive queues that this port serves.
    pub fn queues(&self) -> usize {
        self.sockets.len()
    }

    /// Sends what the interface had no room for.
    fn send_pending(&mut self) {
        if let Some(socket) = self.sockets.first_mut()
            && socket.has_pending()
            && socket.flush(&mut self.late).is_err()
        {
            self.broken = true;
        }
    }
}

impl Drop for AfXdp {
    fn drop(&mut self) {
        assert_may_wait();
    }
}

/// Puts a frame into the ring of the socket that sends.
fn push(sockets: &mut [Xsk], mtu: usize, frame: &TxFrame<'_>, sent: &mut Sent) -> io::Result<()> {
    let [first, second] = frame.parts;
    let start = if first.is_empty() { second } else { first };
    let tag = if matches!(start.get(12..14), Some([0x81, 0] | [0x88, 0xa8])) { TAG } else { 0 };
    let len = frame.len();
    if len < ETHERNET || len > mtu + ETHERNET + tag {
        sent.refused += 1;
        return Ok(());
    }
    let Some(socket) = sockets.first_mut() else { return Ok(()) };
    socket.push(frame.parts, sent)
}

impl SwitchPort for AfXdp {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
        if self.broken {
            return Err(Errno::NODEV.into());
        }
        self.send_pending();
        let count = self.sockets.len();
        for n in 0..count {
            let Some(socket) = self.sockets.get_mut((self.next + n) % count) else { break };
            let before = packets.len();
            socket.receive(pool, packets, max);
            // With zero copy frames come from hardware, where no checksum is partial.
            if !socket.is_zero_copy() {
                let received = packets.iter_mut().skip(before);
                received.for_each(|packet| partial_checksum::complete(packet.bytes_mut()));
            }
        }
        // A queue that is never empty must not starve the others.
        self.next = (self.next + 1) % count.max(1);
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut sent = std::mem::take(&mut self.late);
        let mut result = if self.broken { Err(Errno::NODEV.into()) } else { Ok(()) };
        for mut packet in packets.drain(..) {
            if result.is_ok() {
                let (sockets, mtu) = (&mut self.sockets, self.mtu);
                result = for_each_frame(&mut packet, TxOffloads::NONE, &mut sent, |frame, sent| {
                    push(sockets, mtu, frame, sent)
                });
            }
            pool.give(packet);
        }
        if let Some(socket) = self.sockets.first_mut() {
            result = result.and_then(|()| socket.flush(&mut sent));
        }
        result?;
        // The kernel reports the same error for a missing carrier and for a full queue.
        if sent.full > 0 && !self.state.has_carrier() {
            sent.down += std::mem::take(&mut sent.full);
        }
        Ok(sent)
    }

    fn take_rx_drops(&mut self) -> u64 {
        self.sockets.iter_mut().map(Xsk::take_rx_drops).sum()
    }

    fn link(&mut self) -> bool {
        if !self.state.exists() {
            self.broken = true;
            return false;
        }
        self.mtu = self.state.mtu();
        // Frames of new queues would go to the kernel, and chunks have no room for larger ones.
        self.broken |= self.state.receive_queues() != self.redirect.queues || self.mtu > self.max_mtu;
        self.state.has_carrier()
    }

    fn mtu(&self) -> Option<u32> {
        u32::try_from(self.mtu).ok()
    }

    fn monitor(&mut self) -> Option<Box<dyn PortMonitor>> {
        Some(Box::new(self.monitor.take()?))
    }

    fn arm(&mut self) -> bool {
        self.send_pending();
        let mut empty = true;
        for socket in &mut self.sockets {
            empty &= socket.arm();
        }
        self.broken |= self.sockets.first().is_some_and(Xsk::is_orphaned);
        empty && !self.broken
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}
