//! `Connection`: sends requests and receives their replies in bounded time; serves the device's own requests meanwhile.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::dma_windows::DmaWindows;
use super::wire::{self, HEADER, Header};
use crate::{Error, Result};

/// A received message.
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// A connected socket. An error in the middle of a message closes it: the start of the next message is unknown then.
pub(super) struct Connection {
    stream: UnixStream,
    name: String,
    limit: Duration,
    next_id: u16,
    /// The request whose answer is overdue. Until it arrives, the device gets no other request, and nobody waits for it.
    overdue: Option<Overdue>,
    /// Why the connection was closed.
    lost: Option<String>,
    windows: Arc<DmaWindows>,
}

/// A request that the device has not answered in time.
#[derive(Clone, Copy)]
struct Overdue {
    id: u16,
    limit: Duration,
}

/// The outcome of a wait for a message.
enum Received {
    Message(Message),
    TimedOut,
}

impl Connection {
    /// Connects to a socket; `limit` bounds each wait.
    pub(super) fn open(path: &Path, limit: Duration, windows: Arc<DmaWindows>) -> Result<Self> {
        let name = path.display().to_string();
        let failed = |source| Error::Connect { path: name.clone(), source };
        let stream = connect(path).map_err(failed)?;
        let set = stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit)));
        set.map_err(|e| Error::system(format!("{name}: time-out of {limit:?}"), e))?;
        Ok(Self { stream, name, limit, next_id: 0, overdue: None, lost: None, windows })
    }

    /// Closes the connection and returns the error that says so.
    pub(super) fn close(&mut self, reason: impl Into<String>) -> Error {
        let reason = reason.into();
        // Tells the device now, before its own time-out.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.lost = Some(reason.clone());
        Error::Disconnected { device: self.name.clone(), reason }
    }

    /// Sends a request and waits for its reply, at most `limit`. If the device still owes the reply to an earlier request,
    /// this one fails at once: a device that hangs costs each of its users one wait at most.
    pub(super) fn request(
        &mut self,
        cmd: u16,
        body: &[&[u8]],
        fds: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Message> {
        self.collect_overdue(cmd)?;
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        self.send(Header { id, command: cmd, size: 0, flags: 0, error: 0 }, body, fds)?;
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Received::Message(message) = self.receive(left)? else {
                self.overdue = Some(Overdue { id, limit });
                return Err(self.timeout(cmd, limit));
            };
            if !message.header.is_reply() {
                self.serve(&message)?;
            } else if message.header.id == id {
                return self.accept(cmd, message);
            }
            // Otherwise it is a reply to nothing that was asked. A flood of those, or of requests, ends here:
            if Instant::now() > deadline {
                return Err(self.close("busy with other messages, without a reply to the request"));
            }
        }
    }

    fn timeout(&self, cmd: u16, limit: Duration) -> Error {
        Error::Timeout { device: self.name.clone(), request: wire::name(cmd), limit }
    }

    /// Takes the overdue reply, if there is one and it has arrived. Does not wait.
    fn collect_overdue(&mut self, cmd: u16) -> Result<()> {
        if let Some(reason) = &self.lost {
            return Err(Error::Disconnected { device: self.name.clone(), reason: reason.clone() });
        }
        while let Some(Overdue { id, limit }) = self.overdue {
            let Received::Message(message) = self.receive(Duration::ZERO)? else {
                return Err(self.timeout(cmd, limit));
            };
            if !message.header.is_reply() {
                self.serve(&message)?;
            } else if message.header.id == id {
                self.overdue = None;
            }
        }
        Ok(())
    }

    /// Checks the reply to a request.
    fn accept(&mut self, cmd: u16, message: Message) -> Result<Message> {
        if message.header.command != cmd {
            return Err(self.close(format!(
                "answered {} with {}",
                wire::name(cmd),
                wire::name(message.header.command)
            )));
        }
        if message.header.flags & wire::ERROR == 0 {
            return Ok(message);
        }
        // Some servers report an error without a number.
        let source = match message.header.error as i32 {
            0 => io::Error::other("no reason given"),
            errno => io::Error::from_raw_os_error(errno),
        };
        Err(Error::Refused { device: self.name.clone(), request: wire::name(cmd).into(), source })
    }

    /// Serves a request of the device.
    fn serve(&mut self, message: &Message) -> Result<()> {
        let outcome = self.windows.serve(message.header.command, &message.body);
        if message.header.flags & wire::NO_REPLY != 0 {
            return Ok(());
        }
        match outcome {
            Ok(body) => self.send(Header { flags: wire::REPLY, error: 0, ..message.header }, &[&body], &[]),
            Err(error) => {
                let flags = wire::REPLY | wire::ERROR;
                self.send(Header { flags, error, ..message.header }, &[], &[])
            }
        }
    }

    /// Serves the device's requests that have arrived. Does not wait for more.
    pub(super) fn serve_pending(&mut self) -> Result<()> {
        while self.lost.is_none() {
            let Received::Message(message) = self.receive(Duration::ZERO)? else { break };
            if !message.header.is_reply() {
                self.serve(&message)?;
            } else if self.overdue.is_some_and(|overdue| overdue.id == message.header.id) {
                self.overdue = None;
            }
        }
        Ok(())
    }

    fn send(&mut self, mut header: Header, body: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut bytes = vec![0; HEADER];
        body.iter().for_each(|part| bytes.extend_from_slice(part));
        header.size = bytes.len() as u32;
        bytes[..HEADER].copy_from_slice(&header.encode());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(wire::MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            let problem = format!("{} file descriptors in one message", fds.len());
            return Err(Error::Protocol { device: self.name.clone(), what: "request", detail: problem });
        }
        let sent = loop {
            let slices = [IoSlice::new(&bytes)];
            match rustix::net::sendmsg(&self.stream, &slices, &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        let rest = match sent {
            Ok(n) => self.stream.write_all(bytes.get(n..).unwrap_or_default()),
            Err(e) => Err(e.into()),
        };
        rest.map_err(|e| self.close(format!("sending {}: {e}", wire::name(header.command))))
    }

    /// Receives a message. [`Received::TimedOut`] if the time is over before its first byte.
    fn receive(&mut self, wait: Duration) -> Result<Received> {
        if !self.is_readable(wait)? {
            return Ok(Received::TimedOut);
        }
        let mut header = [0; HEADER];
        let mut fds = Vec::new();
        let mut got = 0;
        while got < HEADER {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(wire::MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut header[got..])];
            let received =
                rustix::net::recvmsg(&self.stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC);
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            match received {
                Ok(m) if m.bytes == 0 => return Err(self.close("closed by the device")),
                Ok(m) => got += m.bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if got == 0 => return Ok(Received::TimedOut),
                Err(e) => return Err(self.close(format!("receiving: {e}"))),
            }
        }
        let header = Header::decode(&header);
        if !(HEADER as u32..=wire::MAX_MESSAGE).contains(&header.size) {
            return Err(self.close(format!("a message of {} bytes", header.size)));
        }
        let mut body = vec![0; header.size as usize - HEADER];
        self.read_body(&mut body)?;
        Ok(Received::Message(Message { header, body, fds }))
    }

    /// Waits until there is something to receive: a message, or the end of the connection.
    fn is_readable(&self, wait: Duration) -> Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
            match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&limit)) {
                Ok(n) => return Ok(n > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::system(format!("{}: poll", self.name), e)),
            }
        }
    }

    fn read_body(&mut self, body: &mut [u8]) -> Result<()> {
        let deadline = Instant::now() + self.limit;
        let mut got = 0;
        while got < body.len() {
            match self.stream.read(&mut body[got..]) {
                Ok(0) => return Err(self.close("closed by the device in the middle of a message")),
                Ok(n) => got += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.close(format!("receiving: {e}"))),
            }
            if Instant::now() > deadline {
                return Err(self.close("a message that takes too long"));
            }
        }
        Ok(())
    }
}

/// Connects without waiting: a process that is stopped, and whose queue of connections is full, would be waited for without
/// end.
fn connect(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
