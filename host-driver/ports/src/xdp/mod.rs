//! An interface, of which we take the overlay's frames before the kernel sees them: XDP sockets (af_xdp.rst).
//!
//! A [program](program) on the interface redirects our frames to the socket of the receive queue that they came in, and
//! lets all others pass to the kernel, as if we were not there. What we take the kernel never sees: so it does not answer
//! with ICMP that nobody listens. Program and sockets go with this value, and with the process, however it ends.
//!
//! * Each queue's socket has memory of its own, and a frame is copied once between it and a packet's buffer. The packets'
//!   own buffers are not shared with the kernel: the pool is all ports', a buffer would be away for as long as the kernel
//!   likes, and its bytes would be reached from two sides. Over a veth, taking a frame of 1,450 bytes costs 0.05 to 0.1 us
//!   with the copy, and sending one 1.6 to 2.1 us, nearly all of it the kernel's (with a packet socket 2.6 to 2.9). Where
//!   the driver uses our memory itself (zero copy), the copy here is the only one.
//! * Nothing is known of a frame but its bytes. So large frames do not come. The other end of a veth cuts its own as long
//!   as there is a program here (the kernel turns its segmentation off), and leaves their checksums undone, which are
//!   [completed](partial). Where the driver does not run programs ([`is_generic`](AfXdp::is_generic)) the kernel does, when
//!   it has put received frames together (GRO): these are longer than a slot, and are dropped and counted, so that GRO is
//!   to be turned off there (`ethtool -K eth0 gro off`). A VLAN tag that a NIC has taken out of a frame is lost.
//! * All receive queues are served that the driver tells of (ethtool's channels); we send on the first one, in order. Several
//!   workers may each have a [part](AfXdpParts) of them.
//!
//! Needs Linux 5.11, for frames larger than a page 6.6, and `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_BPF`.

mod assemble;
mod bpf;
mod partial;
mod program;
mod queue;
mod redirect;
mod rings;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use culvert_packet::Gso;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use self::bpf::Mode;
use self::queue::{Queue, Shape};
pub use self::redirect::AfXdpParts;
use self::redirect::Redirect;
use super::filter::Filter;
use super::sys::{self, About};
use culvert_packet::segment::{MAX_HEADERS, Segmentation};
use culvert_switch::{Packet, Pool, Sent, SwitchPort};

/// Length of an Ethernet header, and of a VLAN tag.
const ETHERNET: usize = 14;
const TAG: usize = 4;
/// The most frames that may wait in a queue.
const MOST_SLOTS: usize = 1 << 15;

/// How an interface is used.
#[derive(Clone, Copy, Debug)]
pub struct AfXdpOptions {
    /// The frames that are taken. Of control traffic, that is what is meant for the address alone: ICMP, and ARP or
    /// neighbour discovery about it. It is not the kernel's then.
    pub filter: Filter,
    /// Also takes frames for MACs that the interface does not know.
    pub promiscuous: bool,
    /// Has the driver use our memory itself, where it can.
    pub zero_copy: bool,
    /// Frames that may wait in each receive queue, and as many to be sent: rounded up to a power of two. Each takes 2 KiB,
    /// or 4 KiB where the MTU is more than 1,774 bytes.
    pub slots: usize,
}

impl Default for AfXdpOptions {
    /// All frames, also for other MACs.
    fn default() -> Self {
        AfXdpOptions { filter: Filter::Everything, promiscuous: true, zero_copy: true, slots: 2048 }
    }
}

/// The interface.
pub struct AfXdp {
    /// The program on the interface: where nobody else has a part, it is taken away before the sockets are.
    redirect: Arc<Redirect>,
    queues: Vec<Queue>,
    /// The queue that is asked first: each is in turn.
    turn: usize,
    /// Readable when one of the sockets is.
    readable: OwnedFd,
    /// For questions about the interface, in the network namespace in which it was opened.
    socket: OwnedFd,
    index: u32,
    mtu: usize,
    /// The MTU for which there are slots.
    most_mtu: usize,
    /// What became of frames that were sent later than they were asked for.
    late: Sent,
    /// The interface is gone, or not what it was.
    broken: bool,
}

impl AfXdp {
    /// Takes frames of an interface, and sends on it.
    ///
    /// ```no_run
    /// use culvert_switch::Opener;
    /// use culvert_ports::{AfXdp, AfXdpOptions};
    ///
    /// let open: Opener = Box::new(|| Ok(Box::new(AfXdp::open("eth0", &AfXdpOptions::default())?)));
    /// ```
    ///
    /// # Errors
    /// There is no such interface, no right to do so, or an XDP program on the interface already.
    pub fn open(interface: &str, options: &AfXdpOptions) -> io::Result<AfXdp> {
        Self::open_part(interface, options, &AfXdpParts::new(1), 0)
    }

    /// Takes frames of part number so and so of an interface's receive queues, and sends on the first of them.
    ///
    /// # Errors
    /// As [`open`](Self::open), and there is no queue left for this part.
    pub fn open_part(
        interface: &str,
        options: &AfXdpOptions,
        parts: &AfXdpParts,
        part: u32,
    ) -> io::Result<AfXdp> {
        let name = sys::name(interface)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol it gets no frames.
        let owned = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let socket = owned.as_fd();
        let index = netdevice::name_to_index(socket, interface)?;
        let mtu = mtu_of(socket, &name)?;
        let count = sys::receive_queues(socket, &name);
        let redirect = parts.redirect(index, count, &options.filter)?;
        if redirect.mode == Mode::Generic {
            tracing::warn!(
                interface,
                "the driver does not run XDP programs, so that this is slow; turn GRO off"
            );
        }
        let slots = options.slots.clamp(1, MOST_SLOTS).next_power_of_two() as u32;
        let readable = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut queues = Vec::new();
        for queue in parts.of(part, count) {
            let (longest, zero_copy, sends) = (mtu + ETHERNET + TAG, options.zero_copy, queues.is_empty());
            let shape = Shape { interface: index, queue, longest, slots, sends, zero_copy };
            let opened = Queue::open(&shape).map_err(|error| {
                io::Error::new(error.kind(), format!("an XDP socket for receive queue {queue}: {error}"))
            })?;
            redirect.put(queue, opened.as_fd())?;
            epoll::add(&readable, &opened, epoll::EventData::new_u64(queue.into()), epoll::EventFlags::IN)?;
            queues.push(opened);
        }
        if queues.is_empty() {
            let why = format!("{interface} has {count} receive queues, and none for worker {part}");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        if options.promiscuous {
            // struct packet_mreq: interface, type, no address.
            let membership = [index, libc::PACKET_MR_PROMISC as u32, 0, 0];
            sys::set_packet(socket, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        }
        let most_mtu = mtu;
        let late = Sent::default();
        let socket = owned;
        Ok(AfXdp { redirect, queues, turn: 0, readable, socket, index, mtu, most_mtu, late, broken: false })
    }

    /// Whether the driver cannot run the program, so that the kernel does when it has made its own buffer of a frame.
    pub fn is_generic(&self) -> bool {
        self.redirect.mode == Mode::Generic
    }

    /// Whether the driver uses our memory itself.
    pub fn is_zero_copy(&self) -> bool {
        self.queues.iter().all(Queue::is_zero_copy)
    }

    /// How many receive queues an interface has.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn receive_queues(interface: &str) -> io::Result<u32> {
        let name = sys::name(interface)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        netdevice::name_to_index(&socket, interface)?;
        Ok(sys::receive_queues(socket.as_fd(), &name))
    }

    /// How many receive queues are served here.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    fn push(&mut self, packet: &mut Packet, sent: &mut Sent) -> io::Result<()> {
        let offload = packet.offload;
        if offload.gso == Gso::None {
            if !offload.fill_checksum(packet.bytes_mut()) {
                sent.refused += 1;
                return Ok(());
            }
            return self.push_frame([packet.bytes(), &[]], sent);
        }
        let Some(cut) = Segmentation::of(packet.bytes(), &offload) else {
            sent.refused += 1;
            return Ok(());
        };
        let mut header = [0; MAX_HEADERS];
        for n in 0..cut.count() {
            let (len, payload) = cut.segment(packet.bytes(), n, &mut header);
            let frame = [header.get(..len), packet.bytes().get(payload)].map(Option::unwrap_or_default);
            self.push_frame(frame, sent)?;
        }
        Ok(())
    }

    fn push_frame(&mut self, frame: [&[u8]; 2], sent: &mut Sent) -> io::Result<()> {
        let start = if frame[0].is_empty() { frame[1] } else { frame[0] };
        let tag = if matches!(start.get(12..14), Some([0x81, 0] | [0x88, 0xa8])) { TAG } else { 0 };
        let len = frame[0].len() + frame[1].len();
        if len < ETHERNET || len > self.mtu + ETHERNET + tag {
            sent.refused += 1;
            return Ok(());
        }
        let Some(queue) = self.queues.first_mut() else { return Ok(()) };
        queue.push(frame, sent)
    }

    /// Sends what the interface had no room for before.
    fn send_rest(&mut self) {
        if let Some(queue) = self.queues.first_mut()
            && queue.waits()
            && queue.flush(&mut self.late).is_err()
        {
            self.broken = true;
        }
    }
}

fn mtu_of(socket: BorrowedFd<'_>, name: &[u8; libc::IFNAMSIZ]) -> io::Result<usize> {
    let mtu = i32::from_ne_bytes(sys::ask(socket, About::Mtu, name, [0; 4])?);
    Ok(usize::try_from(mtu).unwrap_or(0))
}

impl SwitchPort for AfXdp {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        if self.broken {
            return Err(Errno::NODEV.into());
        }
        self.send_rest();
        let count = self.queues.len();
        for n in 0..count {
            let Some(queue) = self.queues.get_mut((self.turn + n) % count) else { break };
            let before = packets.len();
            queue.receive(pool, packets, most);
            // Hardware has completed what it has received.
            if !queue.is_zero_copy() {
                packets.iter_mut().skip(before).for_each(|packet| partial::complete(packet.bytes_mut()));
            }
        }
        // A queue that is never empty does not keep the others from their turn.
        self.turn = (self.turn + 1) % count.max(1);
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut sent = std::mem::take(&mut self.late);
        let mut result = if self.broken { Err(Errno::NODEV.into()) } else { Ok(()) };
        for mut packet in packets.drain(..) {
            if result.is_ok() {
                result = self.push(&mut packet, &mut sent);
            }
            pool.give(packet);
        }
        if let Some(queue) = self.queues.first_mut() {
            result = result.and_then(|()| queue.flush(&mut sent));
        }
        result?;
        // Without a carrier the kernel drops frames as it does when a queue is full.
        if sent.full > 0 && !sys::link(self.socket.as_fd(), self.index) {
            sent.down += std::mem::take(&mut sent.full);
        }
        Ok(sent)
    }

    fn take_rx_drops(&mut self) -> u64 {
        self.queues.iter_mut().map(Queue::take_rx_drops).sum()
    }

    fn link(&mut self) -> bool {
        let socket = self.socket.as_fd();
        let Ok(name) = sys::current_name(socket, self.index) else {
            self.broken = true;
            return false;
        };
        self.mtu = mtu_of(socket, &name).unwrap_or(self.mtu);
        // Frames of new queues would go to the kernel, and larger ones find no slot.
        let changed = sys::receive_queues(socket, &name) != self.redirect.queues;
        self.broken |= changed || self.mtu > self.most_mtu;
        sys::link(socket, self.index)
    }

    fn arm(&mut self) -> bool {
        self.send_rest();
        let mut empty = true;
        for queue in &mut self.queues {
            empty &= queue.arm();
        }
        self.broken |= self.queues.first().is_some_and(Queue::is_orphaned);
        empty && !self.broken
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}
