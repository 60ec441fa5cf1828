//! A vfio-user client that sends what an attack wants, and answers the device's own requests only if it is told to.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::socket;

/// Command numbers.
pub mod command {
    /// Version negotiation.
    pub const VERSION: u16 = 1;
    /// Maps memory.
    pub const DMA_MAP: u16 = 2;
    /// Unmaps memory.
    pub const DMA_UNMAP: u16 = 3;
    /// Sets interrupts.
    pub const SET_IRQS: u16 = 8;
    /// Reads a region.
    pub const REGION_READ: u16 = 9;
    /// Writes a region.
    pub const REGION_WRITE: u16 = 10;
    /// The device reads memory by message.
    pub const DMA_READ: u16 = 11;
    /// The device writes memory by message.
    pub const DMA_WRITE: u16 = 12;
    /// Resets the function.
    pub const RESET: u16 = 13;
}

/// Flags of a header.
pub mod flag {
    /// A reply.
    pub const REPLY: u32 = 1;
    /// A request without a reply.
    pub const NO_REPLY: u32 = 1 << 4;
    /// A reply that says an error.
    pub const ERROR: u32 = 1 << 5;
}

/// The region of configuration space.
pub const CONFIG: u32 = 7;
/// The set of MSI-X interrupts.
const MSIX: u32 = 2;
/// Longest message that is believed.
const MOST: usize = 4 << 20;

/// A message of the device.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id.
    pub id: u16,
    /// Its command.
    pub command: u16,
    /// Its flags.
    pub flags: u32,
    /// Its error number.
    pub error: u32,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// A connection.
pub struct Client {
    /// The socket.
    pub stream: UnixStream,
    next: u16,
    /// Requests of the device that nobody has answered.
    pub requests: VecDeque<Message>,
    /// Messages that it may still send; then it fails, so that its owner leaves in the middle of something.
    pub budget: Option<u32>,
}

/// Words as they are on the wire.
#[must_use]
pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Long words as they are on the wire.
#[must_use]
pub fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A whole message. `size` is what the header says, whatever the body's length.
#[must_use]
pub fn message(id: u16, command: u16, size: u32, flags: u32, error: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&command.to_le_bytes());
    bytes.extend_from_slice(&words(&[size, flags, error]));
    bytes.extend_from_slice(body);
    bytes
}

/// The message that begins a conversation.
#[must_use]
pub fn version() -> Vec<u8> {
    let body = b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":8}}\0";
    message(1, command::VERSION, 16 + body.len() as u32, 0, 0, body)
}

/// Body of DMA_MAP, for reads and writes.
#[must_use]
pub fn dma_map(offset: u64, iova: u64, size: u64) -> Vec<u8> {
    [words(&[32, 3]), longs(&[offset, iova, size])].concat()
}

/// Body of DMA_UNMAP.
#[must_use]
pub fn dma_unmap(iova: u64, size: u64) -> Vec<u8> {
    [words(&[24, 0]), longs(&[iova, size])].concat()
}

impl Client {
    /// Connects and says nothing.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Client { stream: socket::connect(path)?, next: 1, requests: VecDeque::new(), budget: None })
    }

    /// Connects and agrees on the version.
    ///
    /// # Errors
    /// The device does not agree within two seconds.
    pub fn negotiated(path: &Path) -> io::Result<Self> {
        Self::negotiated_within(path, None)
    }

    /// As [`negotiated`](Self::negotiated), with a budget of messages from the first one on.
    ///
    /// # Errors
    /// As [`negotiated`](Self::negotiated); the budget is spent.
    pub fn negotiated_within(path: &Path, budget: Option<u32>) -> io::Result<Self> {
        let mut client = Self::connect(path)?;
        client.budget = budget;
        client.budget = socket::spend(client.budget)?;
        socket::send(&client.stream, &version(), &[])?;
        client.reply(1).map(|_| client)
    }

    /// Sends a request; its id.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn send(&mut self, command: u16, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<u16> {
        self.budget = socket::spend(self.budget)?;
        self.next = self.next.wrapping_add(1);
        let bytes = message(self.next, command, 16 + body.len() as u32, flags, 0, body);
        socket::send(&self.stream, &bytes, fds)?;
        Ok(self.next)
    }

    /// The next message.
    ///
    /// # Errors
    /// The connection is closed, or nothing comes for two seconds.
    pub fn receive(&mut self) -> io::Result<Message> {
        let mut header = [0; 16];
        socket::receive(&self.stream, &mut header)?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = (word(4) as usize).checked_sub(16).filter(|len| *len <= MOST);
        let mut body = vec![0; len.ok_or(io::ErrorKind::InvalidData)?];
        socket::receive(&self.stream, &mut body)?;
        let [i0, i1, c0, c1, ..] = header;
        let (id, command) = (u16::from_le_bytes([i0, i1]), u16::from_le_bytes([c0, c1]));
        Ok(Message { id, command, flags: word(8), error: word(12), body })
    }

    /// Waits for the reply to a request; the device's own requests are kept.
    ///
    /// # Errors
    /// As [`receive`](Self::receive); the device refuses the request.
    pub fn reply(&mut self, id: u16) -> io::Result<Vec<u8>> {
        loop {
            let message = self.receive()?;
            if message.flags & flag::REPLY == 0 {
                self.requests.push_back(message);
            } else if message.id == id {
                let refused = message.flags & flag::ERROR != 0;
                let error = || io::Error::from_raw_os_error(message.error as i32);
                return if refused { Err(error()) } else { Ok(message.body) };
            }
        }
    }

    /// A request and its reply.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub fn call(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<Vec<u8>> {
        let id = self.send(command, 0, body, fds)?;
        self.reply(id)
    }

    /// Answers a request of the device.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn answer(&self, id: u16, command: u16, flags: u32, error: u32, body: &[u8]) -> io::Result<()> {
        let bytes = message(id, command, 16 + body.len() as u32, flag::REPLY | flags, error, body);
        socket::send(&self.stream, &bytes, &[])
    }

    /// Reads a region.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn read(&mut self, region: u32, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        let request = [longs(&[offset]), words(&[region, len])].concat();
        let reply = self.call(command::REGION_READ, &request, &[])?;
        Ok(reply.get(16..).unwrap_or_default().to_vec())
    }

    /// Writes a region.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let request = [&longs(&[offset])[..], &words(&[region, data.len() as u32]), data].concat();
        self.call(command::REGION_WRITE, &request, &[]).map(drop)
    }

    /// Writes a region and waits for no reply.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn post(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let request = [&longs(&[offset])[..], &words(&[region, data.len() as u32]), data].concat();
        self.send(command::REGION_WRITE, flag::NO_REPLY, &request, &[]).map(drop)
    }

    /// Makes a file the interrupt of an MSI-X vector.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn set_vector(&mut self, vector: u32, fd: BorrowedFd<'_>) -> io::Result<()> {
        // DATA_EVENTFD and ACTION_TRIGGER.
        let body = words(&[20, 1 << 2 | 1 << 5, MSIX, vector, 1]);
        self.call(command::SET_IRQS, &body, &[fd]).map(drop)
    }
}
