//! A TAP interface (the kernel's tuntap.rst): what is sent here, the kernel receives on it, and the other way round.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use culvert_packet::{Gso, MacAddr, Offload};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::time::Timespec;

use super::sys::{self, About, TapSetting};
use super::vnet;
use culvert_netlink::TxDrops;
use culvert_packet::segment::{MAX_HEADERS, Segmentation};
use culvert_switch::{Packet, Pool, Sent, SwitchPort};

/// Bytes of frames that may be under way behind the interface, in the queue of one that they are redirected to for
/// instance, before it counts as full. Without a bound a VM that sends faster than that drains would fill the host's
/// memory.
const UNDER_WAY: i32 = 4 << 20;

/// The interface.
pub struct Tap {
    tap: OwnedFd,
    /// For questions about the interface, in the network namespace in which it was made.
    socket: OwnedFd,
    name: [u8; libc::IFNAMSIZ],
    tx_drops: TxDrops,
    /// Frames that were longer than there was room for, or made no sense.
    unfit: u64,
}

impl Tap {
    /// Attaches to an interface, which is made if there is none of this name, gives it an MTU and the MAC of whoever uses
    /// it (`None`: it keeps its own), and brings it up. An interface that was made here goes when this value does.
    ///
    /// # Errors
    /// An impossible name, no right to do so, or the interface is in use or no TAP.
    pub fn open(interface: &str, mtu: u16, mac: Option<MacAddr>) -> io::Result<Tap> {
        let name = sys::name(interface)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let kind = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        sys::ask(tap.as_fd(), About::AttachTap, &name, kind.to_ne_bytes())?;
        sys::set_tap(tap.as_fd(), TapSetting::HeaderLen(vnet::LEN as i32))?;
        let offload = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        sys::set_tap(tap.as_fd(), TapSetting::Offload(offload))?;
        sys::set_tap(tap.as_fd(), TapSetting::SendBuffer(UNDER_WAY))?;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let ask = |about, value: [u8; 8]| sys::ask(socket.as_fd(), about, &name, value);
        if let Some(MacAddr([a, b, c, d, e, f])) = mac {
            let [family, second] = libc::ARPHRD_ETHER.to_ne_bytes();
            ask(About::SetMac, [family, second, a, b, c, d, e, f])?;
        }
        sys::ask(socket.as_fd(), About::SetMtu, &name, i32::from(mtu).to_ne_bytes())?;
        let [low, high] = sys::ask(socket.as_fd(), About::Flags, &name, [0; 2])?;
        let up = libc::c_short::from_ne_bytes([low, high]) | libc::IFF_UP as libc::c_short;
        sys::ask(socket.as_fd(), About::SetFlags, &name, up.to_ne_bytes())?;
        let tx_drops = TxDrops::open(interface)?;
        Ok(Tap { tap, socket, name, tx_drops, unfit: 0 })
    }

    /// The same, but an interface that was made here stays when this value goes, with its addresses and whatever else it
    /// was given: the next one of this name finds it. It goes when it is [retired](SwitchPort::destroy).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_to_stay(interface: &str, mtu: u16, mac: Option<MacAddr>) -> io::Result<Tap> {
        let tap = Tap::open(interface, mtu, mac)?;
        sys::set_tap(tap.tap.as_fd(), TapSetting::Stays(true))?;
        Ok(tap)
    }

    /// Reads one frame into `packet`, and what of it does not fit there behind as many bytes of `large`.
    fn read(&self, packet: &mut Packet, large: Option<&mut Packet>) -> Result<Read, Errno> {
        let mut header = [0; vnet::LEN];
        let small = packet.room();
        let split = small.len();
        let rest = large.map_or(&mut [][..], |large| large.room().get_mut(split..).unwrap_or_default());
        let room = split + rest.len();
        // A byte more than there is room for shows whether something is missing.
        let mut beyond = [0];
        let mut pieces = [&mut header[..], small, rest, &mut beyond].map(IoSliceMut::new);
        let len = rustix::io::readv(&self.tap, &mut pieces)?.saturating_sub(vnet::LEN);
        let short = header.first_chunk().copied().unwrap_or_default();
        Ok(match vnet::read(&short) {
            Some(offload) if (14..=room).contains(&len) => Read::Frame { offload, len, split: len > split },
            _ => Read::Unfit,
        })
    }

    /// Sends a frame. One that is yet to be segmented stays whole: the kernel cuts it where that is needed.
    fn write(&self, packet: &mut Packet, sent: &mut Sent) -> io::Result<()> {
        let offload = packet.offload;
        if offload.gso == Gso::None {
            return self.put(&vnet::write(&offload, 0), [packet.bytes(), &[]], sent);
        }
        let Some(cut) = Segmentation::of(packet.bytes(), &offload) else {
            sent.refused += 1;
            return Ok(());
        };
        // Datagrams to be cut are known to Linux since 6.2, tunnels since 6.17.
        if offload.gso != Gso::Udp && !cut.is_encapsulated() {
            let (offload, headers) = cut.leave_whole(packet.bytes_mut(), &offload);
            return self.put(&vnet::write(&offload, headers), [packet.bytes(), &[]], sent);
        }
        let mut header = [0; MAX_HEADERS];
        for n in 0..cut.count() {
            let (len, payload) = cut.segment(packet.bytes(), n, &mut header);
            self.put(&[0; vnet::LEN], [&header[..len], &packet.bytes()[payload]], sent)?;
        }
        Ok(())
    }

    fn put(&self, header: &[u8; vnet::LEN], pieces: [&[u8]; 2], sent: &mut Sent) -> io::Result<()> {
        let [first, second] = pieces;
        match rustix::io::writev(&self.tap, &[header, first, second].map(IoSlice::new)) {
            Ok(_) => {
                sent.packets += 1;
                sent.bytes += (first.len() + second.len()) as u64;
            }
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => sent.full += 1,
            // The interface is down.
            Err(Errno::IO) => sent.down += 1,
            // It was deleted.
            Err(error @ Errno::BADFD) => return Err(error.into()),
            Err(_) => sent.refused += 1,
        }
        Ok(())
    }

    /// What can be done at once. A file whose interface was deleted is in error for ever.
    fn events(&self) -> PollFlags {
        let mut asked = [PollFd::new(&self.tap, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // What cannot be asked has no events, and the next read says why.
        let _events = poll(&mut asked, Some(&now));
        asked[0].revents()
    }
}

/// What a read has brought.
enum Read {
    /// A frame; `split`: part of it is in the large buffer.
    Frame { offload: Offload, len: usize, split: bool },
    /// One that cannot be used.
    Unfit,
}

impl SwitchPort for Tap {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        let mut large = pool.take_large();
        let mut result = Ok(());
        while packets.len() < most {
            let Some(mut packet) = pool.take() else { break };
            match self.read(&mut packet, large.as_mut()) {
                Ok(Read::Frame { offload, len, split }) => {
                    if split && let Some(mut whole) = large.take() {
                        let head = packet.room();
                        whole.room()[..head.len()].copy_from_slice(head);
                        pool.give(std::mem::replace(&mut packet, whole));
                        large = pool.take_large();
                    }
                    // Not more than was read, and that lies within the buffer.
                    let _fits = packet.set(0, len);
                    vnet::accept(&mut packet, offload);
                    packets.push(packet);
                }
                Ok(Read::Unfit) => {
                    self.unfit += 1;
                    pool.give(packet);
                }
                Err(error) => {
                    pool.give(packet);
                    if error != Errno::AGAIN {
                        result = Err(error.into());
                    }
                    break;
                }
            }
        }
        if let Some(large) = large {
            pool.give(large);
        }
        result
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut sent = Sent::default();
        let mut result = Ok(());
        for mut packet in packets.drain(..) {
            if result.is_ok() {
                result = self.write(&mut packet, &mut sent);
            }
            pool.give(packet);
        }
        result.map(|()| sent)
    }

    fn take_rx_drops(&mut self) -> u64 {
        std::mem::take(&mut self.unfit) + self.tx_drops.take()
    }

    fn link(&mut self) -> bool {
        let attached = !self.events().intersects(PollFlags::ERR | PollFlags::NVAL);
        let flags = sys::ask(self.socket.as_fd(), About::Flags, &self.name, [0; 2]);
        let up = |flags| libc::c_short::from_ne_bytes(flags) & libc::IFF_UP as libc::c_short != 0;
        attached && flags.is_ok_and(up)
    }

    fn destroy(&mut self) {
        // One that cannot be taken away any more has been taken away by somebody else.
        let _ = sys::set_tap(self.tap.as_fd(), TapSetting::Stays(false));
    }

    fn arm(&mut self) -> bool {
        self.events().is_empty()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}
