//! An interface of the kernel's, which stays in use beside us: a packet socket (packet(7)).
//!
//! Received frames come in a ring in shared memory. It is TPACKET_V2: a frame is there when its slot's status says so,
//! whereas TPACKET_V3 hands over blocks of frames when they are full or at least a millisecond old, which two VMs that
//! ask and answer would wait for at every turn. A frame that is larger than a slot, because the other end of a veth has
//! left its segments uncut, comes through the socket's queue instead, whole, and its slot says so.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use culvert_packet::ChecksumState;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with, sockopt};

use super::filter::Filter;
use super::outbox::Outbox;
use super::sys::{self, About, Ring};
use super::vnet;
use culvert_netlink::Guard;
use culvert_switch::{BUFFER, HEADROOM, Packet, Pool, Sent, SwitchPort};

/// The kernel allocates a ring in blocks; a slot lies in one.
const BLOCK: usize = 1 << 16;
/// What a slot needs beside a frame's IP packet: the ring's header, alignment, our header, MACs and tags.
const OVERHEAD: usize = libc::TPACKET2_HDRLEN + 32 + vnet::SHORT_LEN + 14 + 2 * TAG;
/// The largest MTU for which slots are made.
const LARGEST: usize = 9216;
/// Length of a VLAN tag.
const TAG: usize = 4;
/// Bytes of large frames that may wait in the socket's queue.
const QUEUE: usize = 8 << 20;
/// Bytes of sent frames that the interface may hold before it counts as full.
const UNDER_WAY: usize = 4 << 20;

/// How an interface is used.
#[derive(Clone, Copy, Debug)]
pub struct AfPacketOptions {
    /// The frames that are taken.
    pub filter: Filter,
    /// Also takes frames for MACs that the interface does not know.
    pub promiscuous: bool,
    /// Shares the interface's frames with all sockets of this group, by flow (`PACKET_FANOUT_HASH`). Frames that cannot
    /// be told apart by flow come to one of them.
    pub fanout: Option<u16>,
    /// Frames that may wait.
    pub slots: usize,
    /// Keeps from the kernel what [`Filter::Overlay`] takes, see [`Guard`].
    pub guard: bool,
}

impl Default for AfPacketOptions {
    /// All frames, also for other MACs, not shared.
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

/// The interface.
pub struct AfPacket {
    socket: OwnedFd,
    ring: Ring,
    /// The slot that comes next.
    next: usize,
    outbox: Outbox,
    index: u32,
    /// Frames that were lost in here.
    unfit: u64,
    gone: bool,
    /// Ends with the port.
    _guard: Option<Guard>,
}

impl AfPacket {
    /// Takes frames of an interface, and sends on it.
    ///
    /// # Errors
    /// There is no such interface, or no right to do so.
    pub fn open(interface: &str, options: &AfPacketOptions) -> io::Result<AfPacket> {
        let name = sys::name(interface)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let packet_socket = || socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None);
        let owned = packet_socket()?;
        let socket = owned.as_fd();
        let index = netdevice::name_to_index(socket, interface)?;
        let mtu = i32::from_ne_bytes(sys::ask(socket, About::Mtu, &name, [0; 4])?);
        // Nothing is taken before the filter says what: a socket without a protocol receives nothing. One that is to join
        // a group takes nothing before it has: others have got those frames already.
        let program = options.filter.program();
        let first = if options.fanout.is_some() { Filter::NOTHING.to_vec() } else { program.clone() };
        sys::attach_filter(socket, &first)?;
        sys::set_packet(socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as i32))?;
        sys::set_packet(socket, libc::PACKET_VNET_HDR, &1)?;
        sys::set_packet(socket, libc::PACKET_COPY_THRESH, &1)?;
        // What we send ourselves does not come back to us.
        sys::set_packet(socket, libc::PACKET_IGNORE_OUTGOING, &1)?;
        // An ordinary user gets no more than anybody (net.core.rmem_max), which is short for large frames.
        sockopt::set_socket_recv_buffer_size_force(socket, QUEUE)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, QUEUE))?;
        let slot = (OVERHEAD + usize::try_from(mtu).unwrap_or(0).min(LARGEST)).next_power_of_two();
        let blocks = (options.slots.max(1) * slot).div_ceil(BLOCK);
        let slots = blocks * BLOCK / slot;
        let request = [BLOCK, blocks, slot, slots].map(|n| n as u32);
        sys::set_packet(socket, libc::PACKET_RX_RING, &request)?;
        let ring = Ring::map(socket, slots, slot)?;
        sys::bind(socket, index, libc::ETH_P_ALL as u16)?;
        if options.promiscuous {
            // struct packet_mreq: interface, type, no address.
            let membership = [index, libc::PACKET_MR_PROMISC as u32, 0, 0];
            sys::set_packet(socket, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        }
        if let Some(group) = options.fanout {
            // What a member was told about outgoing frames does not hold for the group.
            let how = libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
            sys::set_packet(socket, libc::PACKET_FANOUT, &(how << 16 | u32::from(group)))?;
            sys::attach_filter(socket, &program)?;
        }
        let sender = packet_socket()?;
        sys::set_packet(sender.as_fd(), libc::PACKET_QDISC_BYPASS, &1)?;
        sockopt::set_socket_send_buffer_size_force(&sender, UNDER_WAY)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&sender, UNDER_WAY))?;
        sys::bind(sender.as_fd(), index, 0)?;
        let guard = match options.filter {
            Filter::Overlay { address, .. } if options.guard => Some(Guard::install(interface, &[address])?),
            _ => None,
        };
        let outbox = Outbox::new(sender, index);
        Ok(AfPacket { socket: owned, ring, next: 0, outbox, index, unfit: 0, gone: false, _guard: guard })
    }
}

/// What the ring says of a frame (`struct tpacket2_hdr`, whose first word is the status).
struct RxSlot<'a> {
    /// The tag that the kernel has taken out of the frame.
    tag: Option<[u8; TAG]>,
    /// Whether the frame is in the socket's queue.
    queued: bool,
    /// Length of the frame without the tag.
    len: usize,
    vnet: [u8; vnet::SHORT_LEN],
    /// As much of the frame as the slot has.
    bytes: &'a [u8],
}

impl<'a> RxSlot<'a> {
    /// `None`: it makes no sense.
    fn read(status: u32, behind_status: &'a [u8]) -> Option<Self> {
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
        let vnet = *from(mac.checked_sub(vnet::SHORT_LEN)?)?.first_chunk()?;
        let queued = status & libc::TP_STATUS_COPY != 0;
        Some(RxSlot { tag, queued, len, vnet, bytes: from(mac)?.get(..kept)? })
    }

    /// Makes the frame the packet's. `false`: it is not whole.
    fn take(&self, socket: BorrowedFd<'_>, packet: &mut Packet) -> bool {
        let (tag, mut vnet) = (self.tag.map_or(0, |_| TAG), self.vnet);
        if self.len < 14 || !packet.set(0, self.len + tag) {
            return false;
        }
        let (macs, rest) = packet.bytes_mut().split_at_mut(12);
        let (place, rest) = rest.split_at_mut(tag);
        place.copy_from_slice(self.tag.as_ref().map_or(&[], |tag| tag));
        if self.queued {
            if from_queue(socket, &mut [&mut vnet, macs, rest].map(IoSliceMut::new)) != self.len + vnet.len()
            {
                return false;
            }
        } else {
            let Some((from, behind)) = self.bytes.split_at_checked(12) else { return false };
            if behind.len() != rest.len() {
                return false;
            }
            macs.copy_from_slice(from);
            rest.copy_from_slice(behind);
        }
        let Some(mut offload) = vnet::read(&vnet) else { return false };
        // The kernel counts from the beginning of the frame without the tag.
        if offload.checksum == ChecksumState::Partial {
            offload.start = offload.start.saturating_add(tag as u16);
        }
        vnet::accept(packet, offload);
        true
    }
}

/// The next frame of the socket's queue. Its length, as far as there is room.
fn from_queue(socket: BorrowedFd<'_>, pieces: &mut [IoSliceMut<'_>]) -> usize {
    loop {
        match rustix::io::readv(socket, pieces) {
            Ok(len) => return len,
            // The interface went down since: said once, and before the frames that came earlier.
            Err(Errno::NETDOWN | Errno::INTR) => {}
            Err(_) => return 0,
        }
    }
}

impl SwitchPort for AfPacket {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        if self.gone {
            return Err(Errno::NODEV.into());
        }
        let socket = self.socket.as_fd();
        while packets.len() < most {
            let Some((status, bytes)) = self.ring.slot(self.next) else { break };
            let slot = RxSlot::read(status, bytes);
            let common = slot.as_ref().is_none_or(|slot| slot.len + TAG <= BUFFER - HEADROOM);
            let Some(mut packet) = (if common { pool.take() } else { pool.take_large() }) else {
                if common {
                    break;
                }
                // All that is behind it, for whichever VM, would wait with it.
                if slot.is_some_and(|slot| slot.queued) {
                    from_queue(socket, &mut [IoSliceMut::new(&mut [0])]);
                }
                self.unfit += 1;
                self.ring.give(self.next);
                self.next = self.ring.after(self.next);
                continue;
            };
            if slot.is_some_and(|slot| slot.take(socket, &mut packet)) {
                packets.push(packet);
            } else {
                pool.give(packet);
                self.unfit += 1;
            }
            self.ring.give(self.next);
            self.next = self.ring.after(self.next);
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        self.outbox.send(pool, packets)
    }

    fn take_rx_drops(&mut self) -> u64 {
        let dropped = sys::packet_drops(self.socket.as_fd()).unwrap_or(0);
        std::mem::take(&mut self.unfit) + u64::from(dropped)
    }

    fn link(&mut self) -> bool {
        sys::link(self.socket.as_fd(), self.index)
    }

    fn arm(&mut self) -> bool {
        if self.ring.slot(self.next).is_some() {
            return false;
        }
        // An interface that was taken down leaves an error behind, with which the socket is readable until it is asked.
        if let Ok(Err(_)) = sockopt::socket_error(&self.socket) {
            self.gone = netdevice::index_to_name_inlined(&self.socket, self.index).is_err();
        }
        !self.gone
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
