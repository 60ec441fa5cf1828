//! Messages with file descriptors on a UNIX stream: framing, bounded reads, whole writes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::message::{HEADER_LEN, Header, MAX_FDS, MAX_MESSAGE};

/// The kernel passes at most this many file descriptors in one call (`SCM_MAX_FD`): with room for all of them none is
/// installed behind our back when the list is cut.
const KERNEL_MAX_FDS: usize = 253;

/// One message as it came.
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
    /// More file descriptors came than [`MAX_FDS`], or the kernel cut their list; the excess is closed.
    pub(super) fds_lost: bool,
}

/// Reads one message; `None` at an orderly end. An impossible size is `InvalidData`: the stream is of no use after it.
pub(super) fn receive(stream: &UnixStream) -> io::Result<Option<Message>> {
    let mut bytes = [0; HEADER_LEN];
    let mut fds = Received::default();
    if !fds.fill(stream, &mut bytes, true)? {
        return Ok(None);
    }
    let header = Header::decode(&bytes);
    let size = header.size as usize;
    if !(HEADER_LEN..=MAX_MESSAGE).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "vfio-user message of impossible size"));
    }
    let mut body = vec![0; size - HEADER_LEN];
    fds.fill(stream, &mut body, false)?;
    Ok(Some(Message { header, body, fds: fds.list, fds_lost: fds.lost }))
}

/// File descriptors gathered while a message is read.
#[derive(Default)]
struct Received {
    list: Vec<OwnedFd>,
    lost: bool,
}

impl Received {
    /// Fills `into`. False if the stream ended before the first byte and `may_end`.
    fn fill(&mut self, stream: &UnixStream, into: &mut [u8], may_end: bool) -> io::Result<bool> {
        let mut done = 0;
        while done < into.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut into[done..])];
            let result = match recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    for fd in fds {
                        if self.list.len() < MAX_FDS {
                            self.list.push(fd);
                        } else {
                            self.lost = true;
                        }
                    }
                }
            }
            self.lost |= result.flags.contains(ReturnFlags::CTRUNC);
            if result.bytes == 0 {
                if done == 0 && may_end {
                    return Ok(false);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += result.bytes;
        }
        Ok(true)
    }
}

/// Writes one message with at most one file descriptor. The header's size is set here.
pub(super) fn send(
    stream: &UnixStream,
    header: Header,
    parts: &[&[u8]],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let len = HEADER_LEN + parts.iter().map(|part| part.len()).sum::<usize>();
    let size = u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&Header { size, ..header }.encode());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let list = fd.map(|fd| [fd]);
    if let Some(list) = &list {
        control.push(SendAncillaryMessage::ScmRights(list));
    }
    let mut done = 0;
    while done < bytes.len() {
        let sent = match sendmsg(stream, &[IoSlice::new(&bytes[done..])], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        // The file descriptor travels with the first byte.
        control.clear();
        done += sent;
    }
    Ok(())
}
