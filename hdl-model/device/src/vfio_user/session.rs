//! One client's conversation: version first, then commands until the stream ends.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::channel::{self, Message};
use super::commands::{self, Reply};
use super::message::{Body, Header, MAX_FDS, MAX_TRANSFER, command, fields, flag};
use super::{Function, RemoteDma};

/// The protocol's version that is spoken here.
const MAJOR: u16 = 0;
const MINOR: u16 = 1;
/// A client that takes no bytes for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

struct Session<'a> {
    stream: Arc<UnixStream>,
    writer: Arc<Mutex<()>>,
    function: &'a Arc<dyn Function>,
    /// There once the version is agreed.
    remote: Option<Arc<RemoteDma>>,
}

/// Serves one client until it leaves, breaks the framing, or the stream is shut down from another thread.
pub(super) fn serve(stream: UnixStream, function: &Arc<dyn Function>) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut session =
        Session { stream: Arc::new(stream), writer: Arc::new(Mutex::new(())), function, remote: None };
    // A fault in the service of one client costs that client its session, and nobody else anything.
    let result = panic::catch_unwind(AssertUnwindSafe(|| session.run()))
        .unwrap_or_else(|_| Err(io::Error::other("a fault of ours, printed above: the session ends")));
    // The function may still hold the way to the client's memory, and with it the socket: tell the client now.
    let _ = session.stream.shutdown(Shutdown::Both);
    if let Some(remote) = &session.remote {
        remote.close();
        function.disconnected();
    }
    result
}

impl<'a> Session<'a> {
    fn run(&mut self) -> io::Result<()> {
        while let Some(message) = channel::receive(&self.stream)? {
            let header = message.header;
            if header.is_reply() {
                if let Some(remote) = &self.remote {
                    remote.deliver(message);
                }
                continue;
            }
            if !header.is_request() {
                continue;
            }
            match self.execute(message) {
                Ok(reply) => self.answer(header, flag::REPLY, 0, &reply)?,
                Err(errno) => {
                    let error = errno.raw_os_error().unsigned_abs();
                    self.answer(header, flag::REPLY | flag::ERROR, error, &Reply::default())?;
                    if header.command == command::VERSION && errno == Errno::PROTONOSUPPORT {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn execute(&mut self, message: Message) -> Result<Reply<'a>, Errno> {
        if message.fds_lost {
            return Err(Errno::INVAL);
        }
        match (message.header.command, &self.remote) {
            (command::VERSION, None) => self.agree(&message.body),
            (command::VERSION, Some(_)) | (_, None) => Err(Errno::INVAL),
            (_, Some(_)) => commands::execute(&**self.function, message),
        }
    }

    /// Version negotiation: the major number must fit, the lower minor number counts.
    fn agree(&mut self, body: &[u8]) -> Result<Reply<'a>, Errno> {
        let request = fields(body, 4)?;
        let (major, minor) = (request.u16_at(0), request.u16_at(2));
        if major != MAJOR {
            return Err(Errno::PROTONOSUPPORT);
        }
        let max_transfer = client_max_transfer(&body[4..])?;
        let capabilities = serde_json::json!({ "capabilities": {
            "max_msg_fds": MAX_FDS,
            "max_data_xfer_size": MAX_TRANSFER,
            "max_dma_maps": crate::dma::MAX_REGIONS,
            "pgsizes": crate::dma::PAGE_SIZE,
            "write_multiple": true,
        }});
        let remote =
            Arc::new(RemoteDma::new(Arc::clone(&self.stream), Arc::clone(&self.writer), max_transfer));
        Arc::clone(self.function).connected(Arc::clone(&remote));
        self.remote = Some(remote);
        let json = capabilities.to_string();
        Ok(Body::default().u16s(&[MAJOR, minor.min(MINOR)]).bytes(json.as_bytes()).bytes(&[0]).into())
    }

    fn answer(&self, request: Header, flags: u32, error: u32, reply: &Reply<'_>) -> io::Result<()> {
        if !request.wants_reply() {
            return Ok(());
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        channel::send(&self.stream, Header { flags, error, ..request }, &[&reply.body], reply.fd)
    }
}

/// The client's limit for one DMA message, from its capabilities: a JSON object that may be left out.
fn client_max_transfer(json: &[u8]) -> Result<usize, Errno> {
    let json = json.split(|byte| *byte == 0).next().unwrap_or_default();
    if json.is_empty() {
        return Ok(MAX_TRANSFER);
    }
    let value: serde_json::Value = serde_json::from_slice(json).map_err(|_| Errno::INVAL)?;
    match value.pointer("/capabilities/max_data_xfer_size") {
        None => Ok(MAX_TRANSFER),
        Some(limit) => {
            let limit = limit.as_u64().filter(|limit| *limit > 0).ok_or(Errno::INVAL)?;
            Ok(usize::try_from(limit).unwrap_or(MAX_TRANSFER).min(MAX_TRANSFER))
        }
    }
}
