//! A kernel interface: packet socket with a receive ring in shared memory (packet(7), TPACKET_V2).
#![allow(unsafe_code, reason = "packet sockets and their ring are only reached through raw system calls")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use culvert_packet::{Family, Reason};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::link_monitor::LinkMonitor;
use super::{Received, Wire};

/// Frames in the ring: as many as a burst of all guests' windows may have under way.
const FRAMES: usize = 4096;
/// Room of a frame: header of the ring, and 1,600 bytes of provider network.
const FRAME_LEN: usize = 2048;
const BLOCK_LEN: usize = 1 << 16;
const RING_LEN: usize = FRAMES * FRAME_LEN;

/// The interface.
pub struct AfPacket {
    socket: OwnedFd,
    ring: *mut u8,
    next: usize,
    monitor: LinkMonitor,
}

/// ethtool's request for the carrier (linux/ethtool.h), and where its answer goes.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

const ETHTOOL_GLINK: u32 = 0x0a;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

// SAFETY: the ring stays mapped for as long as the value lives, and only this value reaches it.
unsafe impl Send for AfPacket {}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is valid for its length, and the kernel copies it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, std::ptr::from_ref(value).cast(), len)
    };
    check(result).map(|_| ())
}

impl AfPacket {
    /// Takes all frames of an interface.
    ///
    /// # Errors
    /// There is no such interface, or no right to do so.
    pub fn open(interface: &str) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is involved; the descriptor is checked before it is owned.
        let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, kind, 0))?) };
        set(&socket, libc::PACKET_VERSION, &libc::tpacket_versions::TPACKET_V2)?;
        // Frames that the board sends do not return to it.
        set(&socket, libc::PACKET_IGNORE_OUTGOING, &1)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: (RING_LEN / BLOCK_LEN) as u32,
            tp_frame_size: FRAME_LEN as u32,
            tp_frame_nr: FRAMES as u32,
        };
        set(&socket, libc::PACKET_RX_RING, &request)?;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping of the socket's ring at an address that the kernel chooses.
        let ring = unsafe { libc::mmap(std::ptr::null_mut(), RING_LEN, prot, flags, socket.as_raw_fd(), 0) };
        if ring == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let name = std::ffi::CString::new(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut place = [0; libc::IFNAMSIZ];
        if interface.len() >= place.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, byte) in place.iter_mut().zip(interface.bytes()) {
            *to = byte as libc::c_char;
        }
        // A socket of its own, so that the packet socket is closed with this value.
        let asking = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let monitor = LinkMonitor::start(move || (has_carrier(&asking, place), 0))?;
        let wire = AfPacket { socket, ring: ring.cast(), next: 0, monitor };
        // SAFETY: the name is a string of C.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        wire.bind(index)?;
        wire.promiscuous(index)?;
        Ok(wire)
    }

    fn bind(&self, index: u32) -> io::Result<()> {
        // SAFETY: an address of zeros is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is valid for its length.
        check(unsafe { libc::bind(self.socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) })
            .map(|_| ())
    }

    /// Frames for the MACs of provider addresses, which the interface does not know.
    fn promiscuous(&self, index: u32) -> io::Result<()> {
        let membership = libc::packet_mreq {
            mr_ifindex: index as i32,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&self.socket, libc::PACKET_ADD_MEMBERSHIP, &membership)
    }

    /// The frame's place in the ring, and its status word.
    fn slot(&self) -> (*mut u8, &AtomicU32) {
        // SAFETY: `next` is below the number of frames, so that the place lies within the ring.
        let place = unsafe { self.ring.add(self.next * FRAME_LEN) };
        // SAFETY: the status is the header's first word, aligned, and shared with the kernel.
        (place, unsafe { AtomicU32::from_ptr(place.cast()) })
    }
}

impl Wire for AfPacket {
    fn receive(&mut self, into: &mut [u8]) -> Received {
        let (place, status) = self.slot();
        let word = status.load(Ordering::Acquire);
        if word & libc::TP_STATUS_USER == 0 {
            return Received::Nothing;
        }
        // SAFETY: the kernel has handed the place over; the header lies at its beginning.
        let header = unsafe { place.cast::<libc::tpacket2_hdr>().read() };
        let (start, kept) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        let tag = if word & libc::TP_STATUS_VLAN_VALID != 0 { 4 } else { 0 };
        let len = kept + tag;
        let fits = start + kept <= FRAME_LEN && header.tp_len == header.tp_snaplen && len <= into.len();
        let result = if fits && kept >= 14 {
            // SAFETY: within the place, by the check above, and the kernel's hands are off it.
            let frame = unsafe { std::slice::from_raw_parts(place.add(start), kept) };
            into[..12].copy_from_slice(&frame[..12]);
            if tag != 0 {
                // The kernel takes the outermost tag out of the frame.
                into[12..14].copy_from_slice(&0x8100u16.to_be_bytes());
                into[14..16].copy_from_slice(&header.tp_vlan_tci.to_be_bytes());
            }
            into[12 + tag..len].copy_from_slice(&frame[12..]);
            if word & libc::TP_STATUS_CSUMNOTREADY != 0 {
                complete_checksum(&mut into[..len]);
            }
            Received::Frame(len)
        } else if kept < 14 {
            Received::Bad(Reason::Runt)
        } else {
            Received::Bad(Reason::TooLong)
        };
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % FRAMES;
        result
    }

    fn send(&mut self, header: &[u8], payload: &[u8]) -> Result<(), Reason> {
        let parts = [io::IoSlice::new(header), io::IoSlice::new(payload)];
        match rustix::io::writev(&self.socket, &parts) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::NETDOWN | rustix::io::Errno::NXIO) => Err(Reason::UplinkDown),
            Err(rustix::io::Errno::MSGSIZE) => Err(Reason::TooLong),
            Err(_) => Err(Reason::RingFull),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn link(&mut self) -> bool {
        // An interface that was taken down leaves an error behind, with which the socket is readable until it is asked.
        let _told_by_the_link = rustix::net::sockopt::socket_error(&self.socket);
        self.monitor.is_up()
    }

    fn lost(&mut self) -> u64 {
        // SAFETY: statistics of zeros are valid.
        let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the place is valid for its length; reading resets the kernel's counters.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                std::ptr::from_mut(&mut statistics).cast(),
                &mut len,
            )
        };
        if result == 0 { u64::from(statistics.tp_drops) } else { 0 }
    }
}

/// Whether an interface has a carrier. Asks by a socket and not by a file in sysfs, which may show another network namespace.
fn has_carrier(socket: &OwnedFd, name: [libc::c_char; libc::IFNAMSIZ]) -> bool {
    let mut value = EthtoolValue { command: ETHTOOL_GLINK, data: 0 };
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(&mut value).cast() },
    };
    // SAFETY: the kernel reads the request and the value that it points to, and writes the value; both are ours.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, std::ptr::from_mut(&mut request)) };
    check(result).is_ok() && value.data != 0
}

/// Fills in the transport checksum of a frame that the kernel has left to hardware.
fn complete_checksum(frame: &mut [u8]) {
    use culvert_packet::checksum::Checksum;
    let Ok(h) = culvert_packet::parse(frame) else { return };
    let (l3, l4, end) = (usize::from(h.l3), usize::from(h.l4), usize::from(h.l3) + usize::from(h.l3_len));
    let at = match h.protocol {
        6 => l4 + 16,
        17 => l4 + 6,
        _ => return,
    };
    if h.l4 == 0 || at + 2 > end || end > frame.len() {
        return;
    }
    let addresses = if h.family == Family::V4 { l3 + 12..l3 + 20 } else { l3 + 8..l3 + 40 };
    frame[at..at + 2].fill(0);
    let (src, dst) = frame[addresses.clone()].split_at(addresses.len() / 2);
    let mut sum = Checksum::new();
    sum.pseudo(src, dst, culvert_packet::Protocol(h.protocol), (end - l4) as u32);
    sum.bytes(&frame[l4..end]);
    let value = match sum.finish() {
        0 => 0xffff,
        value => value,
    };
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

impl Drop for AfPacket {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made; nothing refers to it any more.
        unsafe { libc::munmap(self.ring.cast(), RING_LEN) };
    }
}
