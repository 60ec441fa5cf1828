//! A vfio-user client that sends what a test wants, well formed or not.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const GET_INFO: u16 = 4;
pub(crate) const GET_REGION_INFO: u16 = 5;
pub(crate) const GET_REGION_IO_FDS: u16 = 6;
pub(crate) const GET_IRQ_INFO: u16 = 7;
pub(crate) const SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const DMA_READ: u16 = 11;
pub(crate) const DMA_WRITE: u16 = 12;
pub(crate) const RESET: u16 = 13;
pub(crate) const WRITE_MULTI: u16 = 15;

const LIMIT: Duration = Duration::from_secs(5);

/// A message from the server.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) id: u16,
    pub(crate) command: u16,
    pub(crate) flags: u32,
    pub(crate) error: u32,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct RawClient {
    pub(crate) stream: UnixStream,
    next: u16,
}

pub(crate) fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn u64s(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

impl RawClient {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("connect");
        stream.set_read_timeout(Some(LIMIT)).expect("time-out");
        Self { stream, next: 0 }
    }

    /// A client on a connection that has agreed on a version.
    pub(crate) fn over(stream: UnixStream) -> Self {
        Self { stream, next: 0 }
    }

    /// Connects and agrees on the version.
    pub(crate) fn negotiated(path: &Path) -> Self {
        let mut client = Self::connect(path);
        let reply = client
            .call(VERSION, b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":8}}\0", &[])
            .expect("version");
        assert_eq!(reply[..4], [0, 0, 1, 0]);
        client
    }

    pub(crate) fn send_raw(&self, header: [u8; 16], body: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(body);
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let sent =
            sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).expect("send");
        assert_eq!(sent, bytes.len());
    }

    pub(crate) fn header(id: u16, command: u16, size: u32, flags: u32, error: u32) -> [u8; 16] {
        let mut header = [0; 16];
        header[0..2].copy_from_slice(&id.to_le_bytes());
        header[2..4].copy_from_slice(&command.to_le_bytes());
        header[4..8].copy_from_slice(&size.to_le_bytes());
        header[8..12].copy_from_slice(&flags.to_le_bytes());
        header[12..16].copy_from_slice(&error.to_le_bytes());
        header
    }

    pub(crate) fn send(&mut self, command: u16, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> u16 {
        self.next += 1;
        self.send_raw(Self::header(self.next, command, 16 + body.len() as u32, flags, 0), body, fds);
        self.next
    }

    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        let mut first = [0];
        self.stream.read_exact(&mut first)?;
        self.receive_after(first[0])
    }

    /// The rest of a message whose first byte has been read.
    pub(crate) fn receive_after(&mut self, first: u8) -> io::Result<Received> {
        let mut header = [0; 16];
        header[0] = first;
        self.stream.read_exact(&mut header[1..])?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut body = vec![0; word(4) as usize - 16];
        self.stream.read_exact(&mut body)?;
        let [i0, i1, c0, c1, ..] = header;
        Ok(Received {
            id: u16::from_le_bytes([i0, i1]),
            command: u16::from_le_bytes([c0, c1]),
            flags: word(8),
            error: word(12),
            body,
        })
    }

    /// A request and its reply: the body, or the error number.
    pub(crate) fn call(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Vec<u8>, u32> {
        let id = self.send(command, 0, body, fds);
        let reply = self.receive().expect("reply");
        assert_eq!((reply.id, reply.command, reply.flags & 0xf), (id, command, 1));
        if reply.flags & 0x20 != 0 { Err(reply.error) } else { Ok(reply.body) }
    }

    pub(crate) fn read(&mut self, region: u32, offset: u64, len: u32) -> Result<Vec<u8>, u32> {
        let request = [u64s(&[offset]), u32s(&[region, len])].concat();
        self.call(REGION_READ, &request, &[]).map(|body| body[16..].to_vec())
    }

    pub(crate) fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), u32> {
        let request = [&u64s(&[offset])[..], &u32s(&[region, data.len() as u32]), data].concat();
        self.call(REGION_WRITE, &request, &[]).map(|_| ())
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
            || self.stream.take_error().is_ok_and(|error| error.is_some())
    }
}

pub(crate) fn dma_map(flags: u32, offset: u64, iova: u64, size: u64) -> Vec<u8> {
    [u32s(&[32, flags]), u64s(&[offset, iova, size])].concat()
}

pub(crate) fn dma_unmap(flags: u32, iova: u64, size: u64) -> Vec<u8> {
    [u32s(&[24, flags]), u64s(&[iova, size])].concat()
}

pub(crate) fn set_irqs(flags: u32, index: u32, start: u32, count: u32) -> Vec<u8> {
    u32s(&[20, flags, index, start, count])
}
