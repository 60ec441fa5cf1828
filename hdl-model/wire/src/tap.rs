//! A TAP interface (the kernel's Documentation/networking/tuntap.rst): what the board sends, the kernel receives on it, and
//! the other way round. It may be there already, for instance in a bridge; otherwise it is made, and goes with the board.
#![allow(unsafe_code, reason = "a TAP is attached and asked for its state through raw requests")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use culvert_packet::Reason;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::link_monitor::LinkMonitor;
use super::{Received, Wire};

/// More than an interface can send as one frame.
const LONGEST: usize = 1 << 16;

/// The interface.
pub struct Tap {
    /// Frames pass here. After the interface is gone: something that is never readable.
    tap: OwnedFd,
    gone: bool,
    monitor: LinkMonitor,
    text: String,
    frame: Vec<u8>,
}

impl Tap {
    /// Attaches to an interface, which is made if there is none of this name.
    ///
    /// # Errors
    /// An impossible name, no right to do so, or the interface is in use or no TAP.
    pub fn open(interface: &str) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        // A percent sign would have the kernel choose a number.
        if interface.is_empty() || interface.len() >= name.len() || interface.contains(['%', '/', '\0']) {
            let why = "a name has 1 to 15 bytes, and neither % nor /";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        for (to, byte) in name.iter_mut().zip(interface.bytes()) {
            *to = byte as libc::c_char;
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        // No header of the driver's before a frame; then the kernel completes checksums and segments itself.
        let kind = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        ask(&tap, libc::TUNSETIFF, name, kind)?;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let (text, frame) = (interface.to_owned(), vec![0; LONGEST]);
        let (asked, mut lost) = (text.clone(), None);
        let monitor = LinkMonitor::start(move || {
            let flags = ask(&socket, libc::SIOCGIFFLAGS as libc::Ioctl, name, 0);
            // Of the thread's namespace, in which the interface was made.
            let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
            let now = transmit_drops(&table, &asked).or(lost).unwrap_or(0);
            let before = lost.replace(now).unwrap_or(now);
            let up = flags.is_ok_and(|flags| flags & libc::IFF_UP as libc::c_short != 0);
            (up, now.saturating_sub(before))
        })?;
        Ok(Tap { tap, gone: false, monitor, text, frame })
    }

    /// The interface was deleted: its file would be readable for ever.
    fn leave(&mut self) {
        if let Ok(silent) = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
            tracing::warn!(interface = self.text, "the TAP interface is gone");
            self.tap = silent;
            self.gone = true;
        }
    }
}

/// Makes a request about an interface: its name and flags go in, its flags come out.
fn ask(
    file: &OwnedFd,
    request: libc::Ioctl,
    name: [libc::c_char; libc::IFNAMSIZ],
    flags: libc::c_short,
) -> io::Result<libc::c_short> {
    let mut about =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: both requests that are made read and write this structure alone, which is ours.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, std::ptr::from_mut(&mut about)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the flags were stored above, and the kernel has only changed them.
    Ok(unsafe { about.ifr_ifru.ifru_flags })
}

impl Wire for Tap {
    fn receive(&mut self, into: &mut [u8]) -> Received {
        let len = match rustix::io::read(&self.tap, &mut self.frame) {
            Ok(len) => len,
            Err(Errno::BADFD) if !self.gone => {
                self.leave();
                return Received::Nothing;
            }
            Err(_) => return Received::Nothing,
        };
        match into.get_mut(..len) {
            _ if len < 14 => Received::Bad(Reason::Runt),
            Some(place) => {
                place.copy_from_slice(&self.frame[..len]);
                Received::Frame(len)
            }
            None => Received::Bad(Reason::TooLong),
        }
    }

    fn send(&mut self, header: &[u8], payload: &[u8]) -> Result<(), Reason> {
        if self.gone {
            return Err(Reason::UplinkDown);
        }
        match rustix::io::writev(&self.tap, &[io::IoSlice::new(header), io::IoSlice::new(payload)]) {
            Ok(_) => Ok(()),
            // The interface is down, or deleted.
            Err(Errno::IO | Errno::BADFD) => Err(Reason::UplinkDown),
            Err(_) => Err(Reason::RingFull),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }

    fn link(&mut self) -> bool {
        !self.gone && self.monitor.is_up()
    }

    fn lost(&mut self) -> u64 {
        self.monitor.take_lost()
    }
}

/// Frames that an interface could not hand over, out of the kernel's table (proc_net_dev): eight columns of what it has
/// received, and the same of what it has sent.
pub(super) fn transmit_drops(table: &str, interface: &str) -> Option<u64> {
    let (_, columns) =
        table.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == interface)?;
    columns.split_whitespace().nth(8 + 3)?.parse().ok()
}
