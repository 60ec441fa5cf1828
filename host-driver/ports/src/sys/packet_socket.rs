//! A packet socket and its interface (packet(7)).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use culvert_switch::packet_thread::assert_may_wait;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with, sockopt};
use zerocopy::{Immutable, IntoBytes};

use super::ethtool;
use super::if_name::IfName;
use super::ifreq::{IfRequest, request};
use super::result::check;

/// Messages that [`PacketSocket::send_each`] sends with one system call.
pub(crate) const MAX_MESSAGES: usize = 64;

/// A packet socket, non-blocking, in the network namespace of the thread that opened it. Requests about the interface hold
/// for its index, also after it was renamed.
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    index: u32,
}

impl PacketSocket {
    /// Opens a socket for an interface. It is not bound and has no protocol, so that it receives nothing.
    ///
    /// # Errors
    /// There is no such interface, or the process lacks `CAP_NET_RAW`.
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
        IfName::new(interface)?;
        let fd = unbound()?;
        let index = netdevice::name_to_index(&fd, interface)?;
        Ok(PacketSocket { fd, index })
    }

    /// Opens another socket for the same interface.
    pub(crate) fn open_another(&self) -> io::Result<Self> {
        Ok(PacketSocket { fd: unbound()?, index: self.index })
    }

    /// Index of the interface.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    fn name(&self) -> io::Result<IfName> {
        IfName::by_index(self.as_fd(), self.index)
    }

    /// Whether the interface to which the socket was bound has been removed, or moved to another network namespace. Asks the
    /// socket alone, and does not wait.
    pub(crate) fn is_orphaned(&self) -> bool {
        // SAFETY: an address of zeros is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let into = ptr::from_mut(&mut address).cast();
        // SAFETY: the place is ours and as long as `len` says.
        let result = check(unsafe { libc::getsockname(self.fd.as_raw_fd(), into, &mut len) });
        // The kernel sets the index to -1.
        result.is_ok() && address.sll_ifindex < 0
    }

    /// Whether the interface still exists.
    pub(crate) fn interface_exists(&self) -> bool {
        assert_may_wait();
        netdevice::index_to_name_inlined(&self.fd, self.index).is_ok()
    }

    /// MTU of the interface.
    pub(crate) fn mtu(&self) -> io::Result<usize> {
        let mtu = i32::from_ne_bytes(request(self.as_fd(), IfRequest::GetMtu, &self.name()?, [0; 4])?);
        Ok(usize::try_from(mtu).unwrap_or(0))
    }

    /// Whether the interface exists and has a carrier.
    pub(crate) fn has_carrier(&self) -> bool {
        self.name().is_ok_and(|name| ethtool::has_carrier(self.as_fd(), &name))
    }

    /// The number of the interface's receive queues; 1 if its driver does not tell.
    pub(crate) fn receive_queues(&self) -> io::Result<u32> {
        Ok(ethtool::receive_queues(self.as_fd(), &self.name()?))
    }

    /// Makes the interface promiscuous for as long as the socket is open.
    pub(crate) fn set_promiscuous(&self) -> io::Result<()> {
        // struct packet_mreq: interface, type, no address.
        let membership = [self.index, libc::PACKET_MR_PROMISC as u32, 0, 0];
        self.set_option(libc::PACKET_ADD_MEMBERSHIP, &membership)
    }

    /// Sets an option of level `SOL_PACKET`.
    pub(crate) fn set_option<T: IntoBytes + Immutable>(
        &self,
        option: libc::c_int,
        value: &T,
    ) -> io::Result<()> {
        assert_may_wait();
        let (value, fd) = (value.as_bytes(), self.fd.as_raw_fd());
        let len = value.len() as libc::socklen_t;
        // SAFETY: the value is valid for its length; the kernel copies it, and no option of this level has pointers in it.
        check(unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, value.as_ptr().cast(), len) }).map(drop)
    }

    /// Sets the receive buffer's size, or as much of it as net.core.rmem_max allows.
    pub(crate) fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        sockopt::set_socket_recv_buffer_size_force(&self.fd, bytes)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&self.fd, bytes))?;
        Ok(())
    }

    /// Sets the send buffer's size, or as much of it as net.core.wmem_max allows.
    pub(crate) fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        sockopt::set_socket_send_buffer_size_force(&self.fd, bytes)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&self.fd, bytes))?;
        Ok(())
    }

    /// Takes the socket's pending error: `true` if there was one.
    pub(crate) fn take_error(&self) -> bool {
        matches!(sockopt::socket_error(&self.fd), Ok(Err(_)))
    }

    /// Frames that the socket has dropped since the last call.
    pub(crate) fn take_drops(&self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let (fd, option) = (self.fd.as_raw_fd(), libc::PACKET_STATISTICS);
        let into = ptr::from_mut(&mut statistics).cast();
        // SAFETY: the place is ours and as long as `len` says.
        check(unsafe { libc::getsockopt(fd, libc::SOL_PACKET, option, into, &mut len) })?;
        Ok(statistics.tp_drops)
    }

    /// Attaches a filter of classic BPF, in place of an earlier one.
    pub(crate) fn attach_filter(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        assert_may_wait();
        let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
        let (size, fd) = (size_of::<libc::sock_fprog>() as libc::socklen_t, self.fd.as_raw_fd());
        let value = ptr::from_ref(&program).cast();
        // SAFETY: the program is valid for its length; the kernel copies and verifies it, and writes nothing.
        check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, size) })
            .map(drop)
    }

    /// Binds the socket to the interface, to receive frames of `protocol` (0: to send only).
    pub(crate) fn bind(&self, protocol: u16) -> io::Result<()> {
        assert_may_wait();
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: self.index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is valid for its length.
        check(unsafe { libc::bind(self.fd.as_raw_fd(), ptr::from_ref(&address).cast(), len) }).map(drop)
    }

    /// Sends up to [`MAX_MESSAGES`] frames of two parts each (sendmmsg(2)). Returns how many were sent; an error is the
    /// first frame's.
    pub(crate) fn send_each(&self, frames: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
        let message = |parts: &[IoSlice<'_>; 2]| libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: ptr::null_mut(),
                msg_namelen: 0,
                msg_iov: parts.as_ptr().cast_mut().cast(),
                msg_iovlen: parts.len(),
                msg_control: ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            msg_len: 0,
        };
        let empty = [IoSlice::new(&[]), IoSlice::new(&[])];
        let count = frames.len().min(MAX_MESSAGES);
        let mut messages: [libc::mmsghdr; MAX_MESSAGES] =
            std::array::from_fn(|n| message(frames.get(n).unwrap_or(&empty)));
        let (fd, flags) = (self.fd.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: `count` messages are there; each points to two IoSlices, laid out as iovec, over memory that outlives the
        // call and is only read; the kernel writes the lengths in the messages alone.
        check(unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count as libc::c_uint, flags) })
    }
}

fn unbound() -> io::Result<OwnedFd> {
    assert_may_wait();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
