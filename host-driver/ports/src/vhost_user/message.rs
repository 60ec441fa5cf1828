//! Requests of a VMM and answers to them (the vhost-user protocol), on a stream socket with files beside.
//!
//! The `vhost` crate would do this, but for one thing: it takes `SET_VRING_ENABLE` as wrong before `SET_FEATURES`, which is
//! when QEMU says for the first, and only, time that a network device's rings are enabled.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recv, recvmsg, send,
};

use super::memory::Description;

/// Files of one message; QEMU has up to eight.
const FILES: usize = 32;
/// Longest body: as many regions.
const LONGEST: usize = 8 + FILES * REGION;
/// Length of a region's description.
const REGION: usize = 32;
const HEADER: usize = 12;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Instead of a file: there is none.
const NO_FILE: u64 = 1 << 8;

/// A request. Rings have numbers, which may be any.
pub(super) enum Request {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemTable(Vec<(Description, OwnedFd)>),
    SetVringNum(usize, u32),
    SetVringAddr(usize, VringAddr),
    SetBase(usize, u32),
    GetBase(usize),
    SetKick(usize, Option<OwnedFd>),
    SetCall(usize, Option<OwnedFd>),
    SetError(usize, Option<OwnedFd>),
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueues,
    Enable(usize, bool),
}

/// Where a ring is, in the VMM's own addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct VringAddr {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// What is answered.
pub(super) enum Reply {
    /// Nothing but, if that is asked for, that all is well.
    Done,
    Number(u64),
    /// Of a ring, its number and where it stands.
    Base(usize, u16),
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the VMM has closed it")]
    Closed,
    #[error("request {0} is wrong or was not offered")]
    Request(u32),
    #[error("request {0}: {1}")]
    Refused(u32, &'static str),
    #[error(transparent)]
    Socket(#[from] Errno),
}

/// A request that came.
pub(super) struct Message {
    pub(super) code: u32,
    pub(super) request: Request,
    /// Whether it is to be acknowledged, once that was agreed on.
    pub(super) need_reply: bool,
}

/// Waits for the next request.
pub(super) fn next(stream: &UnixStream) -> Result<Message, End> {
    let mut header = [0; HEADER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut files = RecvAncillaryBuffer::new(&mut space);
    // Files come with the first byte.
    let first = retry_on_intr(|| {
        recvmsg(stream, &mut [IoSliceMut::new(&mut header)], &mut files, RecvFlags::CMSG_CLOEXEC)
    })?;
    let rights = |message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    };
    let files: Vec<OwnedFd> = files.drain().filter_map(rights).flatten().collect();
    if first.bytes == 0 {
        return Err(End::Closed);
    }
    fill(stream, &mut header[first.bytes..])?;
    let [code, flags, len] = words(&header);
    let mut body = [0; LONGEST];
    let wrong = End::Request(code);
    let Some(body) = body.get_mut(..len as usize) else { return Err(wrong) };
    fill(stream, body)?;
    if first.flags.contains(ReturnFlags::CTRUNC) || flags & VERSION_MASK != VERSION || flags & REPLY != 0 {
        return Err(wrong);
    }
    let request = parse(code, body, files).ok_or(wrong)?;
    Ok(Message { code, request, need_reply: flags & NEED_REPLY != 0 })
}

/// Three words, in the order of bytes that this machine and its VMMs have.
fn words(bytes: &[u8; HEADER]) -> [u32; 3] {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = *bytes;
    [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3]].map(u32::from_ne_bytes)
}

fn fill(stream: &UnixStream, mut into: &mut [u8]) -> Result<(), End> {
    while !into.is_empty() {
        let (n, _) = retry_on_intr(|| recv(stream, &mut *into, RecvFlags::empty()))?;
        into = into.get_mut(n..).filter(|_| n > 0).ok_or(End::Closed)?;
    }
    Ok(())
}

fn parse(code: u32, body: &[u8], files: Vec<OwnedFd>) -> Option<Request> {
    let number = || body.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    // A ring's number, and another one.
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
            let [descriptors, used, available] = longs(body.get(8..)?)?;
            Request::SetVringAddr(state()?.0, VringAddr { descriptors, available, used })
        }
        10 => state().map(|(n, base)| Request::SetBase(n, base))?,
        11 => Request::GetBase(state()?.0),
        12 => file(number()?, files).map(|(n, file)| Request::SetKick(n, file))?,
        13 => file(number()?, files).map(|(n, file)| Request::SetCall(n, file))?,
        14 => file(number()?, files).map(|(n, file)| Request::SetError(n, file))?,
        15 => Request::GetProtocolFeatures,
        16 => Request::SetProtocolFeatures(number()?),
        17 => Request::GetQueues,
        18 => match state()? {
            (n, on @ 0..=1) => Request::Enable(n, on == 1),
            _ => return None,
        },
        _ => return None,
    })
}

fn longs<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let longs = bytes.as_chunks::<8>().0.first_chunk::<N>()?;
    Some(longs.map(u64::from_ne_bytes))
}

fn file(word: u64, files: Vec<OwnedFd>) -> Option<(usize, Option<OwnedFd>)> {
    let mut files = files.into_iter();
    let (file, more) = (files.next(), files.next());
    let said = (word & NO_FILE == 0) == file.is_some();
    (said && more.is_none()).then_some(((word & 0xff) as usize, file))
}

fn regions(body: &[u8], files: Vec<OwnedFd>) -> Option<Vec<(Description, OwnedFd)>> {
    let count = u32::from_ne_bytes(*body.first_chunk()?) as usize;
    if count != files.len() {
        return None;
    }
    let describe = |(bytes, file): (&[u8], OwnedFd)| {
        let [guest, len, user, offset] = longs(bytes)?;
        Some((Description { guest, user, len, offset }, file))
    };
    let regions = body.get(8..8 + count * REGION)?.chunks_exact(REGION);
    regions.zip(files).map(describe).collect()
}

/// Answers a request. Whoever waits for no acknowledgement gets none.
pub(super) fn reply(stream: &UnixStream, code: u32, reply: &Reply, acknowledge: bool) -> io::Result<()> {
    let body = match *reply {
        Reply::Done if acknowledge => 0,
        Reply::Done => return Ok(()),
        Reply::Number(number) => number,
        Reply::Base(n, base) => u64::from(base) << 32 | n as u64,
    };
    answer(stream, code, body)
}

/// Says that a request was refused, to who waits for that.
pub(super) fn refuse(stream: &UnixStream, code: u32) -> io::Result<()> {
    answer(stream, code, 1)
}

fn answer(stream: &UnixStream, code: u32, body: u64) -> io::Result<()> {
    let mut message = [0; HEADER + 8];
    for (at, word) in [code, VERSION | REPLY, 8].into_iter().enumerate() {
        message[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    // Two words of a little-endian machine, the first of which comes first.
    message[HEADER..].copy_from_slice(&body.to_ne_bytes());
    let sent = retry_on_intr(|| send(stream, &message, SendFlags::NOSIGNAL))?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
