//! A netlink socket: questions with their answers, and what the kernel tells by itself (RFC 3549, netlink(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};

/// The kernel fills datagrams of at most 32 KiB.
const DATAGRAM: usize = 64 << 10;
/// Bytes of notifications that may wait. An ordinary user gets what anybody gets.
const QUEUE: usize = 1 << 20;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// The socket, in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// A socket of a netlink family, by itself of rtnetlink, that hears of these groups: the bit n is the group n + 1.
    pub(super) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        if groups != 0 {
            sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE)
                .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, QUEUE))?;
        }
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Readable when there is something to hear.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A number for a message that is to be answered.
    pub(super) fn sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends messages. The kernel treats them before this returns, so that answers can be read at once.
    pub(super) fn send(&self, messages: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| send(&self.socket, messages, SendFlags::empty()))?;
        if sent == messages.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The messages of the next datagram, each with its header. `None`: nothing is there.
    pub(super) fn receive(&mut self) -> io::Result<Option<Messages<'_>>> {
        let got = rustix::io::retry_on_intr(|| recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC));
        match got {
            // The end of one that is longer is lost, as it is when there is no room in the queue.
            Ok((_, whole)) if whole > self.buffer.len() => Err(Errno::NOBUFS.into()),
            Ok((len, _)) => Ok(Some(Messages(&self.buffer[..len]))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks or orders something of rtnetlink. `each` gets the answers.
    pub(super) fn call(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        let sequence = self.sequence();
        request.header.sequence_number = sequence;
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.send(&bytes)?;
        while let Some(messages) = self.receive()? {
            for message in messages {
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                    // What we do not know is nothing that was asked for.
                    continue;
                };
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    _ => {}
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel has not answered on netlink"))
    }
}

/// The messages of a datagram.
pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let message = self.0.get(..len).filter(|message| message.len() >= HEADER)?;
        // Messages begin at multiples of four.
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}
