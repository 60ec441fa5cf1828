//! A TAP interface (tuntap.rst): the kernel receives on it what this port sends, and the other way round.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use culvert_netlink::TxDrops;
use culvert_packet::{MacAddr, Offload};
use culvert_switch::packet_thread::assert_may_wait;
use culvert_switch::{Packet, Pool, PortMonitor, Sent, SwitchPort};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::time::Timespec;

use crate::sys::{self, IfName, IfRequest, TunSetting};
use crate::tx_offload::{TxFrame, TxOffloads, for_each_frame};
use crate::vnet_hdr;

/// Bytes of written frames that the kernel may hold, for instance in the queue of an interface to which they are redirected,
/// before the TAP counts as full. The bound keeps a VM that sends faster than that queue drains from filling the host's
/// memory.
const SEND_BUFFER: i32 = 4 << 20;

/// What the kernel completes. It segments UDP since Linux 6.2 and tunnelled packets since 6.17 only.
const OFFLOADS: TxOffloads = TxOffloads { checksum: true, tso4: true, tso6: true, uso: false };

/// A TAP.
pub struct Tap {
    tap: OwnedFd,
    state: Arc<TapState>,
    /// Until port control takes it.
    monitor: Option<TapMonitor>,
    /// Frames that were too long for the buffers, or had an invalid header.
    unusable: u64,
    /// The MTU that it was opened with.
    mtu: u16,
}

impl Tap {
    /// Attaches to an interface, which is created with this MAC (`None`: a random one) if there is none of this name, sets its
    /// MTU, and brings it up. An interface that is there already keeps its MAC, which its user may have set. The kernel removes
    /// an interface that was created here when this value is dropped.
    ///
    /// # Errors
    /// The name is invalid, the process lacks `CAP_NET_ADMIN`, or the interface is in use or not a TAP.
    pub fn open(interface: &str, mtu: u16, mac: Option<MacAddr>) -> io::Result<Tap> {
        let name = IfName::new(interface)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let attach = |kind: libc::c_int| {
            sys::request(tap.as_fd(), IfRequest::AttachTap, &name, (kind as libc::c_short).to_ne_bytes())
        };
        // Refused if there is an interface of this name.
        let created = match attach(kind | libc::IFF_TUN_EXCL) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => attach(kind).map(|_| false)?,
            result => result.map(|_| true)?,
        };
        sys::set_tun(tap.as_fd(), TunSetting::VnetHeaderLen(vnet_hdr::LEN as i32))?;
        let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        sys::set_tun(tap.as_fd(), TunSetting::Offloads(offloads))?;
        sys::set_tun(tap.as_fd(), TunSetting::SendBuffer(SEND_BUFFER))?;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        if let Some(MacAddr([a, b, c, d, e, f])) = mac.filter(|_| created) {
            let [family, second] = libc::ARPHRD_ETHER.to_ne_bytes();
            let address = [family, second, a, b, c, d, e, f];
            sys::request(socket.as_fd(), IfRequest::SetMac, &name, address)?;
        }
        sys::request(socket.as_fd(), IfRequest::SetMtu, &name, i32::from(mtu).to_ne_bytes())?;
        let [low, high] = sys::request(socket.as_fd(), IfRequest::GetFlags, &name, [0; 2])?;
        let up = libc::c_short::from_ne_bytes([low, high]) | libc::IFF_UP as libc::c_short;
        sys::request(socket.as_fd(), IfRequest::SetFlags, &name, up.to_ne_bytes())?;
        let tx_drops = TxDrops::open(interface)?;
        let state = Arc::new(TapState { up: AtomicBool::new(true), tx_drops: AtomicU64::new(0) });
        let monitor = Some(TapMonitor { socket, tx_drops, state: Arc::clone(&state) });
        Ok(Tap { tap, state, monitor, unusable: 0, mtu })
    }

    /// The same, but the interface outlives this value, with its addresses and other settings: the next TAP of this name
    /// attaches to it. [`SwitchPort::destroy`] removes it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_persistent(interface: &str, mtu: u16, mac: Option<MacAddr>) -> io::Result<Tap> {
        let tap = Tap::open(interface, mtu, mac)?;
        sys::set_tun(tap.tap.as_fd(), TunSetting::Persistent(true))?;
        Ok(tap)
    }

    /// Reads one frame into `packet`. What does not fit goes into `large`, at the offset that it has in the frame.
    fn read(&self, packet: &mut Packet, large: Option<&mut Packet>) -> Result<Read, Errno> {
        let mut header = [0; vnet_hdr::LEN];
        let small = packet.room();
        let split = small.len();
        let rest = large.map_or(&mut [][..], |large| large.room().get_mut(split..).unwrap_or_default());
        let room = split + rest.len();
        // One byte more than there is room for shows whether the frame was truncated.
        let mut beyond = [0];
        let mut parts = [&mut header[..], small, rest, &mut beyond].map(IoSliceMut::new);
        let len = rustix::io::readv(&self.tap, &mut parts)?.saturating_sub(vnet_hdr::LEN);
        let short = header.first_chunk().copied().unwrap_or_default();
        Ok(match vnet_hdr::read(&short) {
            Some(offload) if (14..=room).contains(&len) => Read::Frame { offload, len, split: len > split },
            _ => Read::Unusable,
        })
    }

    /// Writes a frame.
    fn write(&self, frame: &TxFrame<'_>, sent: &mut Sent) -> io::Result<()> {
        let header = vnet_hdr::write(&frame.offload, frame.header_len);
        let [first, second] = frame.parts;
        match rustix::io::writev(&self.tap, &[&header, first, second].map(IoSlice::new)) {
            Ok(_) => {
                sent.packets += 1;
                sent.bytes += frame.len() as u64;
            }
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => sent.full += 1,
            // The interface is down.
            Err(Errno::IO) => sent.down += 1,
            // The interface was deleted.
            Err(error @ Errno::BADFD) => return Err(error.into()),
            Err(_) => sent.refused += 1,
        }
        Ok(())
    }

    /// Which of these events are pending now. After the interface was deleted there is always an error.
    fn events(&self, flags: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(&self.tap, flags)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A failed poll returns no events; the next read says why.
        let _events = poll(&mut fds, Some(&now));
        fds[0].revents()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        assert_may_wait();
    }
}

/// What the monitor publishes.
struct TapState {
    /// The interface is up, and in the network namespace in which it was opened.
    up: AtomicBool,
    /// Frames that the kernel dropped because the TAP was not read in time, since the port looked last.
    tx_drops: AtomicU64,
}

/// Reads the interface's state and counters.
struct TapMonitor {
    /// For requests about the interface, in the network namespace in which it was opened.
    socket: OwnedFd,
    tx_drops: TxDrops,
    state: Arc<TapState>,
}

impl PortMonitor for TapMonitor {
    fn poll(&mut self) -> bool {
        let dropped = self.tx_drops.take();
        self.state.tx_drops.fetch_add(dropped, Ordering::Relaxed);
        // By index: the interface may have been moved, and another one of its name made.
        let name = IfName::by_index(self.socket.as_fd(), self.tx_drops.index());
        let flags =
            name.and_then(|name| sys::request(self.socket.as_fd(), IfRequest::GetFlags, &name, [0; 2]));
        let up = |flags| libc::c_short::from_ne_bytes(flags) & libc::IFF_UP as libc::c_short != 0;
        let up = flags.is_ok_and(up);
        self.state.up.swap(up, Ordering::Relaxed) != up
    }
}

/// Result of a read.
enum Read {
    /// A frame. `split`: its end is in the large buffer.
    Frame { offload: Offload, len: usize, split: bool },
    /// A truncated frame, or an invalid header.
    Unusable,
}

impl SwitchPort for Tap {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
        let mut large = pool.take_large();
        let mut result = Ok(());
        // A large frame would be truncated, which the next turn takes whole. Where there are no large buffers at all, small
        // frames do not wait for one.
        while packets.len() < max && (large.is_some() || !pool.keeps_large()) {
            let Some(mut packet) = pool.take() else { break };
            match self.read(&mut packet, large.as_mut()) {
                Ok(Read::Frame { offload, len, split }) => {
                    if split && let Some(mut whole) = large.take() {
                        let head = packet.room();
                        whole.room()[..head.len()].copy_from_slice(head);
                        pool.give(std::mem::replace(&mut packet, whole));
                        large = pool.take_large();
                    }
                    // `read` has checked that the frame lies within the buffer.
                    let _fits = packet.set(0, len);
                    vnet_hdr::set_offload(&mut packet, offload);
                    packets.push(packet);
                }
                Ok(Read::Unusable) => {
                    self.unusable += 1;
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
                result =
                    for_each_frame(&mut packet, OFFLOADS, &mut sent, |frame, sent| self.write(frame, sent));
            }
            pool.give(packet);
        }
        result.map(|()| sent)
    }

    fn take_rx_drops(&mut self) -> u64 {
        std::mem::take(&mut self.unusable) + self.state.tx_drops.swap(0, Ordering::Relaxed)
    }

    fn link(&mut self) -> bool {
        let events = self.events(PollFlags::OUT);
        let attached = !events.intersects(PollFlags::ERR | PollFlags::NVAL);
        // An interface that is down is not writable, wherever it is; one whose queue is half full is not, either.
        attached && (events.contains(PollFlags::OUT) || self.state.up.load(Ordering::Relaxed))
    }

    fn mtu(&self) -> Option<u32> {
        Some(self.mtu.into())
    }

    fn monitor(&mut self) -> Option<Box<dyn PortMonitor>> {
        Some(Box::new(self.monitor.take()?))
    }

    fn destroy(&mut self) {
        // Fails if another process has already removed the interface.
        let _ = sys::set_tun(self.tap.as_fd(), TunSetting::Persistent(false));
    }

    fn arm(&mut self) -> bool {
        self.events(PollFlags::IN).is_empty()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}
