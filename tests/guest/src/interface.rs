//! An interface of the kernel as a guest's device, by a packet socket: for guests on the TAP of a software host.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{bind, recv, send, setsockopt, socket, sockopt};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use crate::{Counters, Error, FramePort, Result};

/// Longest accepted frame.
const ROOM: usize = 1 << 16;
/// Length of the socket's receive queue in bytes, as long as the host's queues.
const QUEUE: usize = 8 << 20;

/// The interface.
pub struct Interface {
    socket: OwnedFd,
    /// Readable when the socket has received a frame or, if enabled, can send.
    events: OwnedFd,
    mac: [u8; 6],
    mtu: u16,
    room: Vec<u8>,
    counters: Counters,
}

impl Interface {
    /// Opens an interface whose IP packets have at most `mtu` bytes. The kernel should have no address on it, since it would
    /// answer too.
    ///
    /// # Errors
    /// There is no such interface, or the process lacks the right.
    pub fn open(name: &str, mtu: u16) -> Result<Self> {
        let failed = |e: Errno| Error::Io { what: format!("the interface {name}"), source: e.into() };
        let mut all = getifaddrs().map_err(failed)?;
        let address: LinkAddr = all
            .find_map(|a| a.address.filter(|_| a.interface_name == name)?.as_link_addr().copied())
            .ok_or_else(|| failed(Errno::ENODEV))?;
        let mac = address.addr().ok_or_else(|| failed(Errno::EAFNOSUPPORT))?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).map_err(failed)?;
        // Fall back to the system's limit.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &QUEUE));
        bind(socket.as_raw_fd(), &address).map_err(failed)?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).and_then(|events| {
            epoll::add(&events, &socket, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
            Ok(events)
        });
        let events = events.map_err(|e| failed(Errno::from_raw(e.raw_os_error())))?;
        Ok(Interface { socket, events, mac, mtu, room: vec![0; ROOM], counters: Counters::default() })
    }
}

impl FramePort for Interface {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn can_send(&mut self) -> bool {
        let mut asked = [PollFd::new(&self.socket, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // What cannot be asked is tried.
        poll(&mut asked, Some(&now)).is_err() || asked[0].revents().contains(PollFlags::OUT)
    }

    fn send(&mut self, frame: &[u8], _: Option<(u16, u16)>) -> Result<()> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += frame.len() as u64;
                Ok(())
            }
            // The interface's own queue is full, and drops, as a network does.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => {
                self.counters.tx_full += 1;
                Ok(())
            }
            Err(e) => Err(Error::Io { what: "sending".into(), source: e.into() }),
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.room, MsgFlags::empty()) {
                Ok(len) => {
                    let frame = &self.room[..len];
                    // What is sent here comes by as well.
                    if frame.get(6..12) == Some(&self.mac[..]) {
                        continue;
                    }
                    self.counters.rx_frames += 1;
                    self.counters.rx_bytes += len as u64;
                    return Ok(Some(frame.to_vec()));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                // It was down for a while.
                Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(e) => return Err(Error::Io { what: "receiving".into(), source: e.into() }),
            }
        }
    }

    fn arm(&mut self, tx: bool) -> bool {
        let room = if tx { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        let wanted = epoll::EventFlags::IN | room;
        // Whoever cannot be told of it looks again when its time is over.
        let _ = epoll::modify(&self.events, &self.socket, epoll::EventData::new_u64(0), wanted);
        false
    }

    fn disarm(&mut self) -> Result<()> {
        Ok(())
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.events.as_fd()]
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
