//! Messages of the vhost-user protocol: reads a VMM's requests with their files, and writes replies.
//!
//! The `vhost` crate would do, but it refuses `SET_VRING_ENABLE` before `SET_FEATURES`, which is when QEMU enables a network
//! device's vrings, and the only time that it does.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recv, recvmsg, send,
};

use super::mem_table::MemRegion;
use super::refusal::Refusal;

/// The largest number of files of a message; QEMU sends up to eight.
const MAX_FILES: usize = 32;
/// Length of the longest body: a memory table of as many regions.
const MAX_BODY: usize = 8 + MAX_FILES * REGION;
/// Length of a region's description.
const REGION: usize = 32;
const HEADER: usize = 12;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Flag of a body: no file comes with the message.
const NO_FILE: u64 = 1 << 8;

/// A request. The first number is the vring's, and is not checked.
pub(super) enum Request {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemTable(Vec<(MemRegion, OwnedFd)>),
    SetVringNum(usize, u32),
    SetVringAddr(usize, VringAddr),
    SetVringBase(usize, u32),
    GetVringBase(usize),
    SetVringKick(usize, Option<OwnedFd>),
    SetVringCall(usize, Option<OwnedFd>),
    SetVringErr(usize, Option<OwnedFd>),
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    SetVringEnable(usize, bool),
}

/// Addresses of a vring's parts, in the VMM's own address space.
#[derive(Clone, Copy, Debug)]
pub(super) struct VringAddr {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// A reply.
pub(super) enum Reply {
    /// An acknowledgement, if the VMM asked for one.
    Ack,
    Number(u64),
    /// Number of a vring, and the index of its next chain.
    VringBase(usize, u16),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    #[error("closed by the VMM")]
    Closed,
    #[error("request {0} is malformed or not supported")]
    Request(u32),
    #[error("request {0}: {1}")]
    Refused(u32, Refusal),
    #[error(transparent)]
    Socket(#[from] Errno),
}

/// A received request.
pub(super) struct Message {
    pub(super) code: u32,
    pub(super) request: Request,
    /// Whether the VMM wants an acknowledgement, if that feature was negotiated.
    pub(super) need_reply: bool,
}

/// Waits for the next request.
pub(super) fn receive(stream: &UnixStream) -> Result<Message, ConnectionEnd> {
    let mut header = [0; HEADER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut files = RecvAncillaryBuffer::new(&mut space);
    // Files arrive with the first byte.
    let first = retry_on_intr(|| {
        recvmsg(stream, &mut [IoSliceMut::new(&mut header)], &mut files, RecvFlags::CMSG_CLOEXEC)
    })?;
    let rights = |message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    };
    let files: Vec<OwnedFd> = files.drain().filter_map(rights).flatten().collect();
    if first.bytes == 0 {
        return Err(ConnectionEnd::Closed);
    }
    read_exact(stream, &mut header[first.bytes..])?;
    let [code, flags, len] = words(&header);
    let mut body = [0; MAX_BODY];
    let malformed = ConnectionEnd::Request(code);
    let Some(body) = body.get_mut(..len as usize) else { return Err(malformed) };
    read_exact(stream, body)?;
    if first.flags.contains(ReturnFlags::CTRUNC) || flags & VERSION_MASK != VERSION || flags & REPLY != 0 {
        return Err(malformed);
    }
    let request = parse(code, body, files).ok_or(malformed)?;
    Ok(Message { code, request, need_reply: flags & NEED_REPLY != 0 })
}

/// The header's three words, in this machine's byte order.
fn words(bytes: &[u8; HEADER]) -> [u32; 3] {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = *bytes;
    [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3]].map(u32::from_ne_bytes)
}

fn read_exact(stream: &UnixStream, mut into: &mut [u8]) -> Result<(), ConnectionEnd> {
    while !into.is_empty() {
        let (n, _) = retry_on_intr(|| recv(stream, &mut *into, RecvFlags::empty()))?;
        into = into.get_mut(n..).filter(|_| n > 0).ok_or(ConnectionEnd::Closed)?;
    }
    Ok(())
}

fn parse(code: u32, body: &[u8], files: Vec<OwnedFd>) -> Option<Request> {
    let number = || body.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    // `struct vhost_vring_state`: number of the vring, and a value.
    let state = || {
        let pair = number()?.to_ne_bytes();
        let [n, value] = [pair.first_chunk()?, pair.last_chunk()?].map(|bytes| u32::from_ne_bytes(*bytes));
        Some((n as usize, value))
    };
    Some(match code {
        1 => Request::GetFeatures,
        2 => Request::SetFeatures(number()?),
        3 => Request::SetOwner,
        4 => Request::ResetOwner,
        5 => Request::SetMemTable(regions(body, files)?),
        8 => state().map(|(n, size)| Request::SetVringNum(n, size))?,
        9 => {
            let [descriptors, used, available] = u64s(body.get(8..)?)?;
            Request::SetVringAddr(state()?.0, VringAddr { descriptors, available, used })
        }
        10 => state().map(|(n, base)| Request::SetVringBase(n, base))?,
        11 => Request::GetVringBase(state()?.0),
        12 => vring_file(number()?, files).map(|(n, file)| Request::SetVringKick(n, file))?,
        13 => vring_file(number()?, files).map(|(n, file)| Request::SetVringCall(n, file))?,
        14 => vring_file(number()?, files).map(|(n, file)| Request::SetVringErr(n, file))?,
        15 => Request::GetProtocolFeatures,
        16 => Request::SetProtocolFeatures(number()?),
        17 => Request::GetQueueNum,
        18 => match state()? {
            (n, on @ 0..=1) => Request::SetVringEnable(n, on == 1),
            _ => return None,
        },
        _ => return None,
    })
}

fn u64s<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let words = bytes.as_chunks::<8>().0.first_chunk::<N>()?;
    Some(words.map(u64::from_ne_bytes))
}

/// Number of the vring, and the file, if the message has one as its flag says.
fn vring_file(word: u64, files: Vec<OwnedFd>) -> Option<(usize, Option<OwnedFd>)> {
    let mut files = files.into_iter();
    let (file, more) = (files.next(), files.next());
    let as_flagged = (word & NO_FILE == 0) == file.is_some();
    (as_flagged && more.is_none()).then_some(((word & 0xff) as usize, file))
}

fn regions(body: &[u8], files: Vec<OwnedFd>) -> Option<Vec<(MemRegion, OwnedFd)>> {
    let count = u32::from_ne_bytes(*body.first_chunk()?) as usize;
    if count != files.len() {
        return None;
    }
    let region = |(bytes, file): (&[u8], OwnedFd)| {
        let [guest, len, user, offset] = u64s(bytes)?;
        Some((MemRegion { guest, user, len, offset }, file))
    };
    let regions = body.get(8..8 + count * REGION)?.chunks_exact(REGION);
    regions.zip(files).map(region).collect()
}

/// Sends a reply. An acknowledgement is sent only if the VMM asked for it.
pub(super) fn reply(stream: &UnixStream, code: u32, reply: &Reply, acknowledge: bool) -> io::Result<()> {
    let body = match *reply {
        Reply::Ack if acknowledge => 0,
        Reply::Ack => return Ok(()),
        Reply::Number(number) => number,
        Reply::VringBase(n, base) => u64::from(base) << 32 | n as u64,
    };
    send_u64(stream, code, body)
}

/// Sends a negative acknowledgement.
pub(super) fn refuse(stream: &UnixStream, code: u32) -> io::Result<()> {
    send_u64(stream, code, 1)
}

fn send_u64(stream: &UnixStream, code: u32, body: u64) -> io::Result<()> {
    let mut message = [0; HEADER + 8];
    for (at, word) in [code, VERSION | REPLY, 8].into_iter().enumerate() {
        message[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    // `Reply::VringBase` is a `struct vhost_vring_state`, of a little-endian machine.
    message[HEADER..].copy_from_slice(&body.to_ne_bytes());
    let sent = retry_on_intr(|| send(stream, &message, SendFlags::NOSIGNAL))?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
