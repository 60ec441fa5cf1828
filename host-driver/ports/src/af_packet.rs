//! A packet socket (packet(7)) on an interface that the kernel uses, too.
//!
//! Frames are received from a TPACKET_V2 ring: each is visible as soon as its slot's status says so. TPACKET_V3 hands over
//! blocks of frames that are full or at least a millisecond old, which would delay each turn of a request and its answer.
//! A frame that is larger than a slot, because the other end of a veth left it unsegmented, comes whole through the socket's
//! receive queue instead, and its slot says so (`TP_STATUS_COPY`). The kernel puts both there under one lock, so that slots
//! with this bit and queued frames have the same order; whatever becomes of such a slot, its frame is taken with it.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use culvert_packet::ChecksumState;
use culvert_switch::{BUFFER, HEADROOM, LARGE_BUFFER, Packet, Pool, PortMonitor, Sent, SwitchPort};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};

use crate::filter::Filter;
use crate::interface_state::{InterfaceMonitor, InterfaceState};
use crate::overlay_sources::SharedGuard;
use crate::packet_tx::PacketTx;
use crate::sys::{PacketRing, PacketSocket};
use crate::vnet_hdr;

/// The kernel allocates a ring in blocks of this length; a slot lies within one.
const BLOCK: usize = 1 << 16;
/// Bytes of a slot beside the IP packet: the ring's header, alignment, `virtio_net_hdr`, Ethernet header and tags.
const OVERHEAD: usize = libc::TPACKET2_HDRLEN + 32 + vnet_hdr::SHORT_LEN + 14 + 2 * TAG;
/// Slots have room for the interface's MTU up to this one.
const MAX_SLOT_MTU: usize = 9216;
/// Length of a VLAN tag.
const TAG: usize = 4;
/// Bytes of the longest frames that fit into a common and into a large buffer.
const SMALL_ROOM: usize = BUFFER - HEADROOM;
const LARGE_ROOM: usize = LARGE_BUFFER - HEADROOM;
/// Bytes of large frames that may wait in the socket's receive queue.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Bytes of sent frames that the kernel may hold before the interface counts as full.
const SEND_BUFFER: usize = 4 << 20;

/// How an interface is used.
#[derive(Clone, Debug)]
pub struct AfPacketOptions {
    /// The frames that are received.
    pub filter: Filter,
    /// Also receives frames for MACs that the interface does not have.
    pub promiscuous: bool,
    /// Shares the interface's frames with all sockets of this group, by flow (`PACKET_FANOUT_HASH`). Frames
    /// without a flow all go to one of them.
    pub fanout: Option<u16>,
    /// Number of received frames that may wait.
    pub slots: usize,
    /// Drops in the kernel what [`Filter::Kernel`] takes, see [`Guard`](culvert_netlink::Guard).
    pub guard: bool,
}

impl Default for AfPacketOptions {
    /// All frames, promiscuous, not shared.
    fn default() -> Self {
        AfPacketOptions {
            filter: Filter::Everything,
            promiscuous: true,
            fanout: None,
            slots: 4096,
            guard: false,
        }
    }
}

/// A packet socket as a port.
pub struct AfPacket {
    socket: Arc<PacketSocket>,
    ring: PacketRing,
    /// The slot of the next frame.
    next: usize,
    tx: PacketTx,
    /// Frames for which there was no large buffer, or that were invalid.
    unusable: u64,
    /// Frames that were longer than a large buffer.
    too_long: u64,
    /// The interface, as the monitor sees it.
    state: Arc<InterfaceState>,
    /// Until port control takes it.
    monitor: Option<InterfaceMonitor>,
    /// The interface was removed.
    removed: bool,
    /// Dropped with the port.
    _guard: Option<SharedGuard>,
}

impl AfPacket {
    /// Opens a packet socket on an interface.
    ///
    /// # Errors
    /// There is no such interface, the process lacks `CAP_NET_RAW`, or the guard cannot be installed.
    pub fn open(interface: &str, options: &AfPacketOptions) -> io::Result<AfPacket> {
        let socket = Arc::new(PacketSocket::open(interface)?);
        let (state, monitor) = InterfaceMonitor::new(&socket)?;
        // Attaches the filter before the socket is bound: without a protocol it receives nothing. A socket that will join a
        // group takes nothing before it has: the members have received those frames already.
        let program = options.filter.program();
        let first = if options.fanout.is_some() { Filter::NOTHING.to_vec() } else { program.clone() };
        socket.attach_filter(&first)?;
        socket.set_option(libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as i32))?;
        socket.set_option(libc::PACKET_VNET_HDR, &1)?;
        socket.set_option(libc::PACKET_COPY_THRESH, &1)?;
        // Frames that this host sends are not received.
        socket.set_option(libc::PACKET_IGNORE_OUTGOING, &1)?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        let slot = (OVERHEAD + state.mtu().min(MAX_SLOT_MTU)).next_power_of_two();
        let blocks = (options.slots.max(1) * slot).div_ceil(BLOCK);
        let slots = blocks * BLOCK / slot;
        let request = [BLOCK, blocks, slot, slots].map(|n| n as u32);
        socket.set_option(libc::PACKET_RX_RING, &request)?;
        let ring = PacketRing::map(socket.as_fd(), slots, slot)?;
        socket.bind(libc::ETH_P_ALL as u16)?;
        if options.promiscuous {
            socket.set_promiscuous()?;
        }
        if let Some(group) = options.fanout {
            // A member's own setting about outgoing frames does not hold for the group.
            let mode = libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
            socket.set_option(libc::PACKET_FANOUT, &(mode << 16 | u32::from(group)))?;
            socket.attach_filter(&program)?;
        }
        let sender = socket.open_another()?;
        sender.set_option(libc::PACKET_QDISC_BYPASS, &1)?;
        sender.set_send_buffer(SEND_BUFFER)?;
        sender.bind(0)?;
        let mut guard = None;
        if let Filter::Kernel { address, sources } = &options.filter {
            sources.attach(&socket, *address)?;
            if options.guard {
                guard = Some(sources.install_guard(interface, *address)?);
            }
        }
        let tx = PacketTx::new(sender, Arc::clone(&state));
        Ok(AfPacket {
            socket,
            ring,
            next: 0,
            tx,
            unusable: 0,
            too_long: 0,
            state,
            monitor: Some(monitor),
            removed: false,
            _guard: guard,
        })
    }
}

/// A slot's header and frame (`struct tpacket2_hdr`, whose first word is the status).
struct RxSlot<'a> {
    /// The VLAN tag that the kernel has removed from the frame.
    tag: Option<[u8; TAG]>,
    /// Length of the frame without the tag.
    len: usize,
    vnet: [u8; vnet_hdr::SHORT_LEN],
    /// As much of the frame as fits into the slot.
    bytes: &'a [u8],
}

impl<'a> RxSlot<'a> {
    /// Parses a slot. `None`: it is invalid.
    fn parse(status: u32, behind_status: &'a [u8]) -> Option<Self> {
        let from = |at: usize| behind_status.get(at.checked_sub(4)?..);
        let half = |at: usize| from(at)?.first_chunk().map(|b| u16::from_ne_bytes(*b));
        let word = |at: usize| from(at)?.first_chunk().map(|b| u32::from_ne_bytes(*b));
        let (len, kept, mac) = (word(4)? as usize, word(8)? as usize, usize::from(half(12)?));
        let tag = if status & libc::TP_STATUS_VLAN_VALID != 0 {
            let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { half(26)? } else { 0x8100 };
            let ([a, b], [c, d]) = (tpid.to_be_bytes(), half(24)?.to_be_bytes());
            Some([a, b, c, d])
        } else {
            None
        };
        let vnet = *from(mac.checked_sub(vnet_hdr::SHORT_LEN)?)?.first_chunk()?;
        Some(RxSlot { tag, len, vnet, bytes: from(mac)?.get(..kept)? })
    }

    /// Room that the frame needs.
    fn room(&self) -> usize {
        self.len + self.tag.map_or(0, |_| TAG)
    }

    /// Copies the frame into a packet, out of the slot or the receive queue. `false`: it is incomplete or invalid.
    ///
    /// # Errors
    /// The queued frame is not the slot's.
    fn copy_to(&self, queue: Option<BorrowedFd<'_>>, packet: &mut Packet) -> io::Result<bool> {
        let (tag, mut vnet) = (self.tag.map_or(0, |_| TAG), self.vnet);
        if self.len < 14 || !packet.set(0, self.len + tag) {
            queue.map_or(Ok(()), |queue| self.discard_queued(queue))?;
            return Ok(false);
        }
        let (macs, rest) = packet.bytes_mut().split_at_mut(12);
        let (tag_bytes, rest) = rest.split_at_mut(tag);
        tag_bytes.copy_from_slice(self.tag.as_ref().map_or(&[], |tag| tag));
        if let Some(queue) = queue {
            if !self.take_queued(queue, &mut [&mut vnet, macs, rest].map(IoSliceMut::new))? {
                return Ok(false);
            }
        } else {
            let Some((from, behind)) = self.bytes.split_at_checked(12) else { return Ok(false) };
            if behind.len() != rest.len() {
                return Ok(false);
            }
            macs.copy_from_slice(from);
            rest.copy_from_slice(behind);
        }
        let Some(mut offload) = vnet_hdr::read(&vnet) else { return Ok(false) };
        // The kernel's offset does not count the tag.
        if offload.checksum == ChecksumState::Partial {
            offload.start = offload.start.saturating_add(tag as u16);
        }
        vnet_hdr::set_offload(packet, offload);
        Ok(true)
    }

    /// Takes the slot's frame from the receive queue. `false`: the kernel has dropped it.
    ///
    /// # Errors
    /// Its length is not the slot's: the queue and the ring are out of step.
    fn take_queued(&self, queue: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> io::Result<bool> {
        match take_queued(queue, parts) {
            Ok(len) if len == self.len + vnet_hdr::SHORT_LEN => Ok(true),
            // It is out of the queue, but the kernel cannot describe its offloads.
            Err(Errno::INVAL) => Ok(false),
            other => {
                let why = format!("a frame of {} bytes is queued as {other:?}", self.len);
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }

    fn discard_queued(&self, queue: BorrowedFd<'_>) -> io::Result<()> {
        let mut vnet = [0; vnet_hdr::SHORT_LEN];
        self.take_queued(queue, &mut [IoSliceMut::new(&mut vnet)]).map(drop)
    }
}

/// Takes the next frame from a socket's receive queue, as much of it as there is room for. Returns the whole length, with the
/// `virtio_net_hdr`.
fn take_queued(queue: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
    loop {
        match recvmsg(queue, parts, &mut RecvAncillaryBuffer::default(), RecvFlags::TRUNC) {
            Ok(message) => return Ok(message.bytes),
            // The interface went down: reported once, before the frames that were received earlier.
            Err(Errno::NETDOWN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

impl AfPacket {
    /// Receives the frame of the next slot. `false`: there is none, or it waits for a buffer.
    fn receive_one(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<bool> {
        let Some((status, bytes)) = self.ring.slot(self.next) else { return Ok(false) };
        let queue = (status & libc::TP_STATUS_COPY != 0).then(|| self.socket.as_fd());
        let slot = RxSlot::parse(status, bytes);
        let room = slot.as_ref().map_or(0, RxSlot::room);
        let packet = if room <= SMALL_ROOM {
            let Some(packet) = pool.take() else { return Ok(false) };
            Some(packet)
        } else if room <= LARGE_ROOM {
            // It does not wait for a large buffer: that would block the frames behind it, for all VMs.
            pool.take_large()
        } else {
            None
        };
        let result = match (slot, packet) {
            (Some(slot), Some(mut packet)) => slot.copy_to(queue, &mut packet).map(|whole| {
                if whole {
                    packets.push(packet);
                } else {
                    self.unusable += 1;
                    pool.give(packet);
                }
            }),
            (Some(slot), None) => {
                *(if room > LARGE_ROOM { &mut self.too_long } else { &mut self.unusable }) += 1;
                queue.map_or(Ok(()), |queue| slot.discard_queued(queue))
            }
            (None, packet) => {
                packet.into_iter().for_each(|packet| pool.give(packet));
                self.unusable += 1;
                // Nobody knows its length.
                queue.map_or(Ok(()), |queue| take_queued(queue, &mut []).map(drop).or(Ok(())))
            }
        };
        self.ring.release(self.next);
        self.next = self.ring.after(self.next);
        result.map(|()| true)
    }
}

impl SwitchPort for AfPacket {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
        if self.removed {
            return Err(Errno::NODEV.into());
        }
        while packets.len() < max && self.receive_one(pool, packets)? {}
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        self.tx.send(pool, packets)
    }

    fn take_rx_drops(&mut self) -> u64 {
        let dropped = self.socket.take_drops().unwrap_or(0);
        std::mem::take(&mut self.unusable) + u64::from(dropped)
    }

    fn take_rx_too_long(&mut self) -> u64 {
        std::mem::take(&mut self.too_long)
    }

    fn link(&mut self) -> bool {
        // The error of an interface that is removed comes when it goes down, shortly before.
        self.removed |= self.socket.is_orphaned();
        !self.removed && self.state.has_carrier()
    }

    fn mtu(&self) -> Option<u32> {
        u32::try_from(self.state.mtu()).ok()
    }

    fn monitor(&mut self) -> Option<Box<dyn PortMonitor>> {
        Some(Box::new(self.monitor.take()?))
    }

    fn arm(&mut self) -> bool {
        if self.ring.slot(self.next).is_some() {
            return false;
        }
        // An interface that was set down leaves an error, which keeps the socket readable until it is taken.
        if self.socket.take_error() {
            self.removed = self.socket.is_orphaned();
        }
        !self.removed
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
