//! A vhost-user front end that sends what an attack wants.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::socket;

/// Request numbers.
pub mod request {
    /// Features that the port offers.
    pub const GET_FEATURES: u32 = 1;
    /// Features that the guest takes.
    pub const SET_FEATURES: u32 = 2;
    /// The front end is there.
    pub const SET_OWNER: u32 = 3;
    /// Memory of the guest.
    pub const SET_MEM_TABLE: u32 = 5;
    /// Size of a vring.
    pub const SET_VRING_NUM: u32 = 8;
    /// Addresses of a vring.
    pub const SET_VRING_ADDR: u32 = 9;
    /// First chain of a vring.
    pub const SET_VRING_BASE: u32 = 10;
    /// Stops a vring.
    pub const GET_VRING_BASE: u32 = 11;
    /// What the guest kicks by.
    pub const SET_VRING_KICK: u32 = 12;
    /// The guest's interrupt.
    pub const SET_VRING_CALL: u32 = 13;
    /// What faults are reported by.
    pub const SET_VRING_ERR: u32 = 14;
    /// Features of the protocol.
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    /// Features of the protocol that the front end takes.
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    /// Enables or disables a vring.
    pub const SET_VRING_ENABLE: u32 = 18;
}

/// Bits of the features: VHOST_USER_F_PROTOCOL_FEATURES and VERSION_1.
pub const PROTOCOL: u64 = 1 << 30;
/// The device follows version 1 of virtio.
pub const VERSION_1: u64 = 1 << 32;
/// Several queue pairs, and acknowledged requests.
const MQ_REPLY_ACK: u64 = 1 | 1 << 3;

/// The flags of a request: version 1.
const VERSION: u32 = 1;
const NEED_REPLY: u32 = 1 << 3;

/// A connection.
pub struct Client {
    /// The socket.
    pub stream: UnixStream,
    /// Messages that it may still send; then it fails, so that its owner leaves in the middle of something.
    pub budget: Option<u32>,
}

/// A whole message. `len` is what the header says, whatever the body's length.
#[must_use]
pub fn message(request: u32, flags: u32, len: u32, body: &[u8]) -> Vec<u8> {
    let header = [request, flags, len];
    header.iter().flat_map(|v| v.to_le_bytes()).chain(body.iter().copied()).collect()
}

/// A vring's number and a value, as most requests about vrings have them.
#[must_use]
pub fn state(vring: u32, value: u32) -> Vec<u8> {
    [vring.to_le_bytes(), value.to_le_bytes()].concat()
}

/// Body of SET_VRING_ADDR: descriptor table, available ring, used ring.
#[must_use]
pub fn addresses(vring: u32, [descriptors, available, used]: [u64; 3]) -> Vec<u8> {
    let longs = [descriptors, used, available, 0];
    [state(vring, 0), longs.iter().flat_map(|v| v.to_le_bytes()).collect()].concat()
}

/// Body of SET_MEM_TABLE: regions of guest address, length, user address, offset in the file.
#[must_use]
pub fn table(regions: &[[u64; 4]]) -> Vec<u8> {
    let words = regions.iter().flatten().flat_map(|v| v.to_le_bytes());
    [state(regions.len() as u32, 0), words.collect()].concat()
}

impl Client {
    /// Connects and says nothing.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Client { stream: socket::connect(path)?, budget: None })
    }

    /// Connects and agrees on features, all that are offered unless `mask` takes some away.
    ///
    /// # Errors
    /// The port does not answer within two seconds.
    pub fn negotiated(path: &Path, mask: u64) -> io::Result<Self> {
        Self::negotiated_within(path, mask, None)
    }

    /// As [`negotiated`](Self::negotiated), with a budget of messages from the first one on.
    ///
    /// # Errors
    /// As [`negotiated`](Self::negotiated); the budget is spent.
    pub fn negotiated_within(path: &Path, mask: u64, budget: Option<u32>) -> io::Result<Self> {
        let mut client = Self::connect(path)?;
        client.budget = budget;
        client.send(request::SET_OWNER, &[], &[])?;
        let offered = client.ask(request::GET_FEATURES, &[])?;
        client.ask(request::GET_PROTOCOL_FEATURES, &[])?;
        client.send(request::SET_PROTOCOL_FEATURES, &MQ_REPLY_ACK.to_le_bytes(), &[])?;
        client.call(request::SET_FEATURES, &(offered & mask).to_le_bytes(), &[])?;
        Ok(client)
    }

    /// Sends a request that asks for no acknowledgement.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn send(&mut self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.budget = socket::spend(self.budget)?;
        socket::send(&self.stream, &message(request, VERSION, body.len() as u32, body), fds)
    }

    /// Sends a request and waits for its acknowledgement.
    ///
    /// # Errors
    /// The connection is closed, nothing comes for two seconds, or the port refuses.
    pub fn call(&mut self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.budget = socket::spend(self.budget)?;
        let bytes = message(request, VERSION | NEED_REPLY, body.len() as u32, body);
        socket::send(&self.stream, &bytes, fds)?;
        if self.reply()? == 0 { Ok(()) } else { Err(io::Error::other("the port refuses")) }
    }

    /// Sends a request that has a number as its answer.
    ///
    /// # Errors
    /// The connection is closed, or nothing comes for two seconds.
    pub fn ask(&mut self, request: u32, body: &[u8]) -> io::Result<u64> {
        self.send(request, body, &[])?;
        self.reply()
    }

    fn reply(&self) -> io::Result<u64> {
        let mut reply = [0; 20];
        socket::receive(&self.stream, &mut reply)?;
        Ok(u64::from_le_bytes(reply[12..].try_into().unwrap_or_default()))
    }

    /// Gives a vring a file: its kick, call or error eventfd.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn set_file(&mut self, request: u32, vring: u64, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.call(request, &vring.to_le_bytes(), &[fd])
    }
}
