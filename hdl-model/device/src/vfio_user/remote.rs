//! DMA through the client: `DMA_READ` and `DMA_WRITE` for memory that has no file descriptor.
//!
//! A thread of the device sends a request and waits; the session's thread, which alone reads the socket, hands the reply
//! over. So the session's thread must never wait here itself, and is free to answer the client's own accesses, which a
//! client such as QEMU wants answered before it reads a request of the device.
//!
//! There is no time-out: a client that is stopped for a while finds its queue as it left it. A wait ends with the answer,
//! with the connection, when the client unmaps the range ([`give_up`](RemoteDma::give_up)), or when the function is reset
//! ([`interrupt`](RemoteDma::interrupt)). So only a thread that serves this client alone may wait here.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use rustix::io::Errno;

use super::channel::{self, Message};
use super::message::{Header, MAX_TRANSFER, command, flag};

/// Why DMA through the client failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The client refused the access, with this error number.
    #[error("the client refused the DMA access: error {0}")]
    Refused(u32),
    /// The connection is gone.
    #[error("the client is gone")]
    Gone,
    /// The client has unmapped the range, or the function was reset, before the answer came.
    #[error("the DMA access was given up")]
    GivenUp,
    /// The answer does not fit the request.
    #[error("the client's answer to a DMA access is malformed")]
    Malformed,
    /// Asked from the session's own thread, which has to read the answer.
    #[error("DMA through the client was asked for on the session's thread")]
    WrongThread,
}

/// How the client lays out DMA messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// As specified: 64-bit address, 64-bit count, data.
    Specified,
    /// As QEMU has it: 64-bit address, 32-bit count, data, and four bytes at the end that its C structure pads.
    Packed,
}

impl Layout {
    fn data_at(self) -> usize {
        if self == Self::Specified { 16 } else { 12 }
    }
}

#[derive(Default)]
struct State {
    closed: bool,
    interrupted: bool,
    next: u16,
    layout: Option<Layout>,
    /// First and last address of the access under way.
    range: Option<(u64, u64)>,
    /// The client has unmapped part of it.
    given_up: bool,
    /// The message that waits for its reply, and the reply once it is there.
    waiting: Option<(u16, Option<Message>)>,
}

impl State {
    /// Why no further message may be sent for the access under way.
    fn check(&self) -> Result<(), RemoteError> {
        match self {
            Self { closed: true, .. } => Err(RemoteError::Gone),
            Self { interrupted: true, .. } | Self { given_up: true, .. } => Err(RemoteError::GivenUp),
            _ => Ok(()),
        }
    }
}

/// The way to a client's memory.
pub struct RemoteDma {
    stream: Arc<UnixStream>,
    /// Held while a message is written, by the session's thread as well: messages must not mingle.
    writer: Arc<Mutex<()>>,
    session: ThreadId,
    max_transfer: usize,
    state: Mutex<State>,
    arrived: Condvar,
    /// Held for an access: one at a time.
    turn: Mutex<()>,
}

impl std::fmt::Debug for RemoteDma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteDma").field("max_transfer", &self.max_transfer).finish_non_exhaustive()
    }
}

/// An access that has begun: from now on an unmap of its range gives it up.
pub struct RemoteAccess<'r> {
    remote: &'r RemoteDma,
    address: u64,
    _turn: MutexGuard<'r, ()>,
}

impl Drop for RemoteAccess<'_> {
    fn drop(&mut self) {
        let mut state = self.remote.lock();
        (state.range, state.given_up, state.waiting) = (None, false, None);
    }
}

impl RemoteAccess<'_> {
    /// Reads the client's memory from the access's address on.
    ///
    /// # Errors
    /// The client refuses or is gone, or the access is given up.
    pub fn read(&self, into: &mut [u8]) -> Result<(), RemoteError> {
        let layout = self.remote.layout()?;
        let mut iova = self.address;
        for chunk in into.chunks_mut(self.remote.max_transfer) {
            let count = chunk.len() as u64;
            let reply =
                self.remote.request(command::DMA_READ, &[&iova.to_le_bytes(), &count.to_le_bytes()])?;
            let at = layout.data_at();
            let data = reply.body.get(at..at + chunk.len()).ok_or(RemoteError::Malformed)?;
            chunk.copy_from_slice(data);
            iova = iova.wrapping_add(count);
        }
        Ok(())
    }

    /// Writes the client's memory from the access's address on.
    ///
    /// # Errors
    /// As [`read`](Self::read); part of the range may be written.
    pub fn write(&self, from: &[u8]) -> Result<(), RemoteError> {
        let layout = self.remote.layout()?;
        let mut iova = self.address;
        for chunk in from.chunks(self.remote.max_transfer) {
            let count = chunk.len() as u64;
            let (address, count_bytes) = (iova.to_le_bytes(), count.to_le_bytes());
            match layout {
                Layout::Specified => {
                    self.remote.request(command::DMA_WRITE, &[&address, &count_bytes, chunk])?
                }
                Layout::Packed => {
                    self.remote.request(command::DMA_WRITE, &[&address, &count_bytes[..4], chunk, &[0; 4]])?
                }
            };
            iova = iova.wrapping_add(count);
        }
        Ok(())
    }
}

impl RemoteDma {
    /// Call it on the session's thread. `max_transfer` is the client's limit.
    pub(super) fn new(stream: Arc<UnixStream>, writer: Arc<Mutex<()>>, max_transfer: usize) -> Self {
        Self {
            stream,
            writer,
            session: thread::current().id(),
            max_transfer: max_transfer.clamp(1, MAX_TRANSFER),
            state: Mutex::default(),
            arrived: Condvar::new(),
            turn: Mutex::default(),
        }
    }

    /// Begins an access to `len` bytes at an address. Look afterwards whether they are still mapped: an unmap that came
    /// before has not given this access up.
    ///
    /// # Errors
    /// Called on the session's thread.
    pub fn begin(&self, address: u64, len: usize) -> Result<RemoteAccess<'_>, RemoteError> {
        if thread::current().id() == self.session {
            return Err(RemoteError::WrongThread);
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let last = address.saturating_add((len as u64).saturating_sub(1));
        self.lock().range = Some((address, last));
        Ok(RemoteAccess { remote: self, address, _turn: turn })
    }

    /// The client has unmapped a range: an access to part of it ends without an answer, and none is sent for it any more.
    pub(crate) fn give_up(&self, iova: u64, size: u64) {
        let end = iova.saturating_add(size.saturating_sub(1));
        let mut state = self.lock();
        if state.range.is_some_and(|(first, last)| first <= end && last >= iova) {
            state.given_up = true;
            self.arrived.notify_all();
        }
    }

    /// Ends the access under way and refuses others until [`resume`](Self::resume): the function is being reset.
    pub(crate) fn interrupt(&self) {
        self.lock().interrupted = true;
        self.arrived.notify_all();
    }

    /// Allows accesses again.
    pub(crate) fn resume(&self) {
        self.lock().interrupted = false;
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Finds out, once, which layout the client speaks: a count of 2^32 is absurd to a client that reads 64 bits, and
    /// an empty read to one that reads 32.
    fn layout(&self) -> Result<Layout, RemoteError> {
        if let Some(layout) = self.lock().layout {
            return Ok(layout);
        }
        let layout =
            match self.request(command::DMA_READ, &[&0u64.to_le_bytes(), &(1u64 << 32).to_le_bytes()]) {
                Ok(_) => Layout::Packed,
                Err(RemoteError::Refused(_)) => Layout::Specified,
                Err(error) => return Err(error),
            };
        self.lock().layout = Some(layout);
        Ok(layout)
    }

    fn request(&self, command: u16, parts: &[&[u8]]) -> Result<Message, RemoteError> {
        {
            // An unmap's reply takes the same lock: whoever has read it gets no message for what was unmapped.
            let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let id = {
                let mut state = self.lock();
                state.check()?;
                // The upper half of the numbers is ours, which keeps a trace of both directions readable.
                let id = state.next | 0x8000;
                state.next = state.next.wrapping_add(1);
                state.waiting = Some((id, None));
                id
            };
            let header = Header { id, command, size: 0, flags: 0, error: 0 };
            if channel::send(&self.stream, header, parts, None).is_err() {
                // Part of the message may be sent: what follows it would have no meaning.
                let _ = self.stream.shutdown(Shutdown::Both);
                return Err(RemoteError::Gone);
            }
        }
        let reply = self.wait()?;
        if reply.header.command != command {
            return Err(RemoteError::Malformed);
        }
        if reply.header.flags & flag::ERROR != 0 {
            return Err(RemoteError::Refused(reply.header.error));
        }
        Ok(reply)
    }

    fn wait(&self) -> Result<Message, RemoteError> {
        let mut state = self.lock();
        loop {
            if let Some(reply) = state.waiting.as_mut().and_then(|(_, reply)| reply.take()) {
                return Ok(reply);
            }
            state.check()?;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a reply that the session's thread has read; one that nobody waits for is dropped.
    pub(super) fn deliver(&self, message: Message) {
        if let Some((id, reply)) = &mut self.lock().waiting
            && *id == message.header.id
        {
            *reply = Some(message);
            self.arrived.notify_all();
        }
    }

    /// The connection is gone: ends the access under way.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<RemoteError> for Errno {
    fn from(_: RemoteError) -> Self {
        Self::IO
    }
}
