//! A netlink socket: requests with their answers, and notifications (RFC 3549, netlink(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};

/// Receive buffer: the kernel fills datagrams of at most 32 KiB.
const DATAGRAM: usize = 64 << 10;
/// Bytes of notifications that may be queued. Without `CAP_NET_ADMIN` the limit is net.core.rmem_max.
const RECV_BUFFER: usize = 1 << 20;
/// `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// The socket, in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket of a netlink family (`None`: rtnetlink) that is subscribed to `groups`: bit n is group n + 1.
    pub(super) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        if groups != 0 {
            sockopt::set_socket_recv_buffer_size_force(&socket, RECV_BUFFER)
                .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECV_BUFFER))?;
        }
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Readable when a message is queued.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A new sequence number, for a message that asks for an answer.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends messages. The kernel processes them before this returns, so that answers can be read at once.
    pub(super) fn send(&self, messages: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| send(&self.socket, messages, SendFlags::empty()))?;
        if sent == messages.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Receives the messages of the next datagram, each with its header. `None`: no datagram is queued.
    pub(super) fn receive(&mut self) -> io::Result<Option<Messages<'_>>> {
        let got = rustix::io::retry_on_intr(|| recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC));
        match got {
            // A truncated datagram counts as lost, like one that found the queue full.
            Ok((_, whole)) if whole > self.buffer.len() => Err(Errno::NOBUFS.into()),
            Ok((len, _)) => Ok(Some(Messages(&self.buffer[..len]))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a request of rtnetlink. `each` gets the answers.
    pub(super) fn call(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        let sequence = self.next_sequence();
        request.header.sequence_number = sequence;
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.send(&bytes)?;
        while let Some(messages) = self.receive()? {
            for message in messages {
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                    // A message that netlink-packet-route does not parse is not an answer to this request.
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
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no answer on the netlink socket"))
    }
}

/// A message: header and payload, in bytes.
pub(super) fn message(message_type: u16, flags: u16, sequence_number: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    (header.message_type, header.flags, header.sequence_number) = (message_type, flags, sequence_number);
    header.length = (header.buffer_len() + payload.len()) as u32;
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes);
    bytes.extend(payload);
    bytes
}

/// Iterator over the messages of a datagram.
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
