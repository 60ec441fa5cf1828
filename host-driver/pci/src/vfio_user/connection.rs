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
    /// Why the connection was closed.
    lost: Option<String>,
    windows: Arc<DmaWindows>,
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
        let stream =
            UnixStream::connect(path).map_err(|source| Error::Connect { path: name.clone(), source })?;
        let set = stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit)));
        set.map_err(|e| Error::system(format!("{name}: time-out of {limit:?}"), e))?;
        Ok(Self { stream, name, limit, next_id: 0, lost: None, windows })
    }

    /// Closes the connection and returns the error that says so.
    fn close(&mut self, reason: impl Into<String>) -> Error {
        let reason = reason.into();
        // Tells the device now, before its own time-out.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.lost = Some(reason.clone());
        Error::Disconnected { device: self.name.clone(), reason }
    }

    /// Sends a request and waits for its reply.
    pub(super) fn request(&mut self, cmd: u16, body: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<Message> {
        if let Some(reason) = &self.lost {
            return Err(Error::Disconnected { device: self.name.clone(), reason: reason.clone() });
        }
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        self.send(Header { id, command: cmd, size: 0, flags: 0, error: 0 }, body, fds)?;
        let deadline = Instant::now() + self.limit;
        loop {
            let message = match self.receive()? {
                Received::Message(message) => message,
                Received::TimedOut => {
                    let device = self.name.clone();
                    return Err(Error::Timeout { device, request: wire::name(cmd), limit: self.limit });
                }
            };
            if !message.header.is_reply() {
                self.serve(&message)?;
            } else if message.header.id == id {
                return self.accept(cmd, message);
            }
            // Otherwise it is a late reply to a request that timed out. A flood of those ends here:
            if Instant::now() > deadline {
                return Err(self.close("busy with other messages, without a reply to the request"));
            }
        }
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
        use rustix::event::{PollFd, PollFlags, Timespec};
        while self.lost.is_none() {
            let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
            let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
            match rustix::event::poll(&mut fds, Some(&no_wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(e) => return Err(Error::system(format!("{}: poll", self.name), e)),
                Ok(_) => {}
            }
            if let Received::Message(message) = self.receive()?
                && !message.header.is_reply()
            {
                self.serve(&message)?;
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
    fn receive(&mut self) -> Result<Received> {
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
