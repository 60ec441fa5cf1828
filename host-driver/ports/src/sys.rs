//! The system calls of packet sockets and TAPs that rustix does not have. All unsafe code of this crate is here and in `xdp`.
#![allow(
    unsafe_code,
    reason = "requests about interfaces and packet sockets are only reached through raw system calls"
)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Messages that [`send_each`] sends with one system call.
pub(super) const MESSAGES: usize = 64;

fn check(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// An interface's name as the kernel's requests have it.
pub(super) fn name(interface: &str) -> io::Result<[u8; libc::IFNAMSIZ]> {
    let mut name = [0; libc::IFNAMSIZ];
    // A percent sign would have the kernel choose a number, and a zero must follow the name.
    if interface.is_empty() || interface.len() >= name.len() || interface.contains(['%', '/', '\0']) {
        let why = "an interface's name has 1 to 15 bytes, and neither % nor /";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    name[..interface.len()].copy_from_slice(interface.as_bytes());
    Ok(name)
}

/// A question or an order about an interface: netdevice(7).
#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    /// Attach a TAP to it, with these flags (tuntap.rst).
    AttachTap,
    /// Its flags.
    Flags,
    /// Set its flags.
    SetFlags,
    /// Its MTU.
    Mtu,
    /// Set its MTU.
    SetMtu,
    /// Set its MAC: an address family, then six bytes.
    SetMac,
}

/// The kernel's `struct ifreq`: what is asked stands at the beginning of `value`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// Makes a request about an interface. `value` goes in, and what the kernel left in its place comes out.
pub(super) fn ask<const N: usize>(
    file: BorrowedFd<'_>,
    about: About,
    name: &[u8; libc::IFNAMSIZ],
    value: [u8; N],
) -> io::Result<[u8; N]> {
    const { assert!(N <= 24) };
    let request = match about {
        About::AttachTap => libc::TUNSETIFF,
        About::Flags => libc::SIOCGIFFLAGS as libc::Ioctl,
        About::SetFlags => libc::SIOCSIFFLAGS as libc::Ioctl,
        About::Mtu => libc::SIOCGIFMTU as libc::Ioctl,
        About::SetMtu => libc::SIOCSIFMTU as libc::Ioctl,
        About::SetMac => libc::SIOCSIFHWADDR as libc::Ioctl,
    };
    let mut ifreq = Request { name: *name, value: [0; 24] };
    ifreq.value[..N].copy_from_slice(&value);
    // SAFETY: each of these requests reads and writes one ifreq, which is ours and as large, and follows no pointer in it.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, ptr::from_mut(&mut ifreq)) })?;
    let mut answer = [0; N];
    answer.copy_from_slice(&ifreq.value[..N]);
    Ok(answer)
}

/// A setting of a TAP (tuntap.rst).
#[derive(Clone, Copy, Debug)]
pub(super) enum TapSetting {
    /// Length of the header in front of each frame.
    HeaderLen(i32),
    /// Bytes of frames that may be under way before a write finds no room.
    SendBuffer(i32),
    /// Whether the interface stays when nobody has it open.
    Stays(bool),
    /// What may be left to us of frames that come: `TUN_F_...`.
    Offload(u32),
}

/// Changes a setting of a TAP.
pub(super) fn set_tap(tap: BorrowedFd<'_>, setting: TapSetting) -> io::Result<()> {
    let (request, number) = match setting {
        TapSetting::HeaderLen(len) => (libc::TUNSETVNETHDRSZ, len),
        TapSetting::SendBuffer(bytes) => (libc::TUNSETSNDBUF, bytes),
        TapSetting::Stays(stays) => return set_tap_by_value(tap, libc::TUNSETPERSIST, stays.into()),
        TapSetting::Offload(flags) => return set_tap_by_value(tap, libc::TUNSETOFFLOAD, flags.into()),
    };
    // SAFETY: both requests read one int.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), request, ptr::from_ref(&number)) }).map(drop)
}

/// A request whose argument is a number, not a place in memory.
fn set_tap_by_value(tap: BorrowedFd<'_>, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the number is the argument itself: no memory is read or written.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), request, value) }).map(drop)
}

/// Asks a question of ethtool's: the first word is the command, and the answer has as many words as the question.
fn ask_ethtool<const N: usize>(
    socket: BorrowedFd<'_>,
    name: &[u8; libc::IFNAMSIZ],
    command: EthtoolCommand<N>,
) -> io::Result<[u32; N]> {
    #[repr(C)]
    struct EthtoolRequest<const N: usize> {
        name: [u8; libc::IFNAMSIZ],
        value: *mut [u32; N],
        unused: [u64; 2],
    }
    const { assert!(size_of::<EthtoolRequest<N>>() == size_of::<libc::ifreq>()) };
    let mut value = [0; N];
    value[0] = command.0;
    let mut request = EthtoolRequest { name: *name, value: &raw mut value, unused: [0; 2] };
    let number = libc::SIOCETHTOOL as libc::Ioctl;
    // SAFETY: the kernel reads the request and the value that it points to, and writes the value; both are ours, and the
    // value is as long as the command has it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), number, ptr::from_mut(&mut request)) })?;
    Ok(value)
}

/// A command of ethtool's whose question and answer are `N` words (linux/ethtool.h).
#[derive(Clone, Copy)]
struct EthtoolCommand<const N: usize>(u32);

/// `struct ethtool_value`.
const ETHTOOL_GLINK: EthtoolCommand<2> = EthtoolCommand(0x0a);
/// `struct ethtool_channels`.
const ETHTOOL_GCHANNELS: EthtoolCommand<9> = EthtoolCommand(0x3c);

/// The name by now of the interface of this index.
pub(super) fn current_name(socket: BorrowedFd<'_>, index: u32) -> io::Result<[u8; libc::IFNAMSIZ]> {
    name(rustix::net::netdevice::index_to_name_inlined(socket, index)?.as_str())
}

/// Whether the interface of this index is there and has a carrier, whatever its name is by now.
pub(super) fn link(socket: BorrowedFd<'_>, index: u32) -> bool {
    let answer = current_name(socket, index).and_then(|name| ask_ethtool(socket, &name, ETHTOOL_GLINK));
    answer.is_ok_and(|[_, carrier]| carrier != 0)
}

/// How many receive queues an interface has; one if its driver does not say.
pub(super) fn receive_queues(socket: BorrowedFd<'_>, name: &[u8; libc::IFNAMSIZ]) -> u32 {
    let answer = ask_ethtool(socket, name, ETHTOOL_GCHANNELS);
    // The fifth to the eighth word are how many there are of each kind: receive, transmit, other, combined.
    answer.map_or(1, |[_, _, _, _, _, receive, _, _, combined]| receive.saturating_add(combined).max(1))
}

/// Sets an option of level `SOL_PACKET`.
pub(super) fn set_packet<T: IntoBytes + Immutable>(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let (value, fd) = (value.as_bytes(), socket.as_raw_fd());
    let len = value.len() as libc::socklen_t;
    // SAFETY: the value is valid for its length; the kernel copies it, and no option of this level has pointers in it.
    check(unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, value.as_ptr().cast(), len) }).map(drop)
}

/// Frames that a packet socket has dropped since this was asked last.
pub(super) fn packet_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut counted = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    let (fd, option) = (socket.as_raw_fd(), libc::PACKET_STATISTICS);
    let into = ptr::from_mut(&mut counted).cast();
    // SAFETY: the place is ours and as long as `len` says.
    check(unsafe { libc::getsockopt(fd, libc::SOL_PACKET, option, into, &mut len) })?;
    Ok(counted.tp_drops)
}

/// Attaches a filter of classic BPF to a socket.
pub(super) fn attach_filter(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let (size, fd) = (size_of::<libc::sock_fprog>() as libc::socklen_t, socket.as_raw_fd());
    let value = ptr::from_ref(&program).cast();
    // SAFETY: the program is valid for its length; the kernel copies and verifies it, and writes nothing.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, size) }).map(drop)
}

/// Binds a packet socket to an interface, for frames of `protocol` (0: for sending alone).
pub(super) fn bind(socket: BorrowedFd<'_>, index: u32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), len) }).map(drop)
}

/// Sends each of up to [`MESSAGES`] messages, of two pieces each. Says how many went; an error is the first one's.
pub(super) fn send_each(socket: BorrowedFd<'_>, messages: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
    let one = |pieces: &[IoSlice<'_>; 2]| libc::mmsghdr {
        msg_hdr: libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: pieces.as_ptr().cast_mut().cast(),
            msg_iovlen: pieces.len(),
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        },
        msg_len: 0,
    };
    let nothing = [IoSlice::new(&[]), IoSlice::new(&[])];
    let count = messages.len().min(MESSAGES);
    let mut headers: [libc::mmsghdr; MESSAGES] =
        std::array::from_fn(|n| one(messages.get(n).unwrap_or(&nothing)));
    let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
    // SAFETY: `count` headers are there; each points to two IoSlices, laid out as iovec, over memory that outlives the
    // call and is only read; the kernel writes the lengths in the headers alone.
    check(unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count as libc::c_uint, flags) })
}

/// A packet socket's receive ring, TPACKET_V2 (packet_mmap.rst): slots of one size, each with a word that says whether
/// it is the kernel's or ours.
pub(super) struct Ring {
    base: NonNull<u8>,
    slots: usize,
    slot_len: usize,
}

// SAFETY: the mapping belongs to this value alone, and the kernel does not care which thread reads it.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring that `socket` was given. Its size is that of the ring.
    pub(super) fn map(socket: BorrowedFd<'_>, slots: usize, slot_len: usize) -> io::Result<Self> {
        assert!(slot_len.is_multiple_of(16) && slot_len >= libc::TPACKET2_HDRLEN && slots > 0);
        let (prot, flags, fd) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, socket.as_raw_fd());
        // SAFETY: a new mapping at an address that the kernel chooses. It refuses a length that is not the ring's.
        let base = unsafe { libc::mmap(ptr::null_mut(), slots * slot_len, prot, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Ring { base, slots, slot_len })
    }

    /// The slot after `n`, the first one after the last.
    pub(super) fn after(&self, n: usize) -> usize {
        if n + 1 < self.slots { n + 1 } else { 0 }
    }

    fn status(&self, n: usize) -> &AtomicU32 {
        assert!(n < self.slots);
        // SAFETY: the place lies within the mapping by the assertion, and slots are aligned to 16 bytes.
        let word = unsafe { self.base.add(n * self.slot_len) };
        // SAFETY: the word lives as long as the mapping, and both sides access it as an atomic.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// Status and bytes of a slot, of which the first four are not to be read, if it is ours.
    pub(super) fn slot(&self, n: usize) -> Option<(u32, &[u8])> {
        let status = self.status(n).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: within the mapping, and behind the status, which alone may be accessed from both sides.
        let bytes = unsafe { self.base.add(n * self.slot_len + 4) };
        // SAFETY: the kernel has handed the slot over, and gets it back only by `give`, which needs this borrow to end.
        Some((status, unsafe { std::slice::from_raw_parts(bytes.as_ptr(), self.slot_len - 4) }))
    }

    /// Gives a slot that is ours back to the kernel.
    pub(super) fn give(&mut self, n: usize) {
        self.status(n).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nothing refers to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.slots * self.slot_len) };
    }
}
