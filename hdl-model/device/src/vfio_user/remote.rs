//! DMA through the client: `DMA_READ` and `DMA_WRITE` for memory that has no file descriptor.
//!
//! The device's thread sends a request and waits; the session's thread, which alone reads the socket, hands the reply
//! over. So the session's thread must never wait here itself, and is free to answer the client's own accesses, which a
//! client such as QEMU wants answered before it reads a request of the device.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use culvert_virtio::{MemoryFault, RemoteMemory};
use rustix::io::Errno;

use super::channel::{self, Message};
use super::message::{Header, MAX_TRANSFER, command, flag};

/// How long a client may take for one DMA message.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why DMA through the client failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The client refused the access, with this error number.
    #[error("the client refused the DMA access: error {0}")]
    Refused(u32),
    /// No answer in time, or the connection is gone.
    #[error("the client did not answer the DMA access")]
    NoAnswer,
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
    next: u16,
    layout: Option<Layout>,
    /// Requests on their way, and their replies once they are there.
    waiting: HashMap<u16, Option<Message>>,
}

/// The way to a client's memory. Any number of threads may use it, except the session's own.
pub struct RemoteDma {
    stream: Arc<UnixStream>,
    /// Held while a message is written, by the session's thread as well: messages must not mingle.
    writer: Arc<Mutex<()>>,
    session: ThreadId,
    max_transfer: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

impl std::fmt::Debug for RemoteDma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteDma").field("max_transfer", &self.max_transfer).finish_non_exhaustive()
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
        }
    }

    /// Reads the client's memory at `iova`.
    pub fn read(&self, mut iova: u64, into: &mut [u8]) -> Result<(), RemoteError> {
        let layout = self.layout()?;
        for chunk in into.chunks_mut(self.max_transfer) {
            let count = chunk.len() as u64;
            let reply = self.request(command::DMA_READ, &[&iova.to_le_bytes(), &count.to_le_bytes()])?;
            let at = layout.data_at();
            let data = reply.body.get(at..at + chunk.len()).ok_or(RemoteError::Malformed)?;
            chunk.copy_from_slice(data);
            iova = iova.wrapping_add(count);
        }
        Ok(())
    }

    /// Writes the client's memory at `iova`.
    pub fn write(&self, mut iova: u64, from: &[u8]) -> Result<(), RemoteError> {
        let layout = self.layout()?;
        for chunk in from.chunks(self.max_transfer) {
            let count = chunk.len() as u64;
            let (address, count_bytes) = (iova.to_le_bytes(), count.to_le_bytes());
            match layout {
                Layout::Specified => self.request(command::DMA_WRITE, &[&address, &count_bytes, chunk])?,
                Layout::Packed => {
                    self.request(command::DMA_WRITE, &[&address, &count_bytes[..4], chunk, &[0; 4]])?
                }
            };
            iova = iova.wrapping_add(count);
        }
        Ok(())
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
        if thread::current().id() == self.session {
            return Err(RemoteError::WrongThread);
        }
        let id = {
            let mut state = self.lock();
            if state.closed {
                return Err(RemoteError::NoAnswer);
            }
            // The upper half of the numbers is ours, which keeps a trace of both directions readable.
            let id = state.next | 0x8000;
            state.next = state.next.wrapping_add(1);
            state.waiting.insert(id, None);
            id
        };
        let sent = {
            let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            channel::send(&self.stream, Header { id, command, size: 0, flags: 0, error: 0 }, parts, None)
        };
        let reply = if sent.is_ok() { self.wait(id) } else { None };
        self.lock().waiting.remove(&id);
        let reply = reply.ok_or(RemoteError::NoAnswer)?;
        if reply.header.command != command {
            return Err(RemoteError::Malformed);
        }
        if reply.header.flags & flag::ERROR != 0 {
            return Err(RemoteError::Refused(reply.header.error));
        }
        Ok(reply)
    }

    fn wait(&self, id: u16) -> Option<Message> {
        let end = Instant::now() + TIMEOUT;
        let mut state = self.lock();
        loop {
            if let Some(reply) = state.waiting.get_mut(&id)?.take() {
                return Some(reply);
            }
            let left = end.checked_duration_since(Instant::now())?;
            if state.closed {
                return None;
            }
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a reply that the session's thread has read; one without a waiting request is dropped.
    pub(super) fn deliver(&self, message: Message) {
        if let Some(slot) = self.lock().waiting.get_mut(&message.header.id) {
            *slot = Some(message);
            self.arrived.notify_all();
        }
    }

    /// The connection is gone: ends all waiting requests.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemoteMemory for RemoteDma {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryFault> {
        RemoteDma::read(self, address, into).map_err(|_| MemoryFault::Remote)
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault> {
        RemoteDma::write(self, address, from).map_err(|_| MemoryFault::Remote)
    }
}

impl From<RemoteError> for Errno {
    fn from(_: RemoteError) -> Self {
        Self::IO
    }
}
