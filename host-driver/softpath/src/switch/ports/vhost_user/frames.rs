//! Frames out of a guest's transmit chains and into its receive buffers.

use culvert_packet::{ChecksumState, Gso};

use super::features::Features;
use super::memory::Memory;
use super::ring::{Chain, Ring, Segment, length};
use super::status::Discard;
use super::{RingFault, vnet};
use crate::switch::{BUFFER, HEADROOM, Packet, Pool};

/// Shortest frame: an Ethernet header.
const SHORTEST: u64 = 14;
/// Longest frame: what a large buffer holds.
const LONGEST: u64 = 1 << 16;
/// Descriptors for one received frame: a guest that crumbles its buffers does not hold up its neighbours.
const MAX_PIECES: usize = 1024;

/// What a transmit chain has brought.
pub(super) enum Taken {
    Frame(Packet),
    Discarded(Discard),
    /// There is no buffer: it stays where it is.
    NoBuffer,
}

/// Takes the frame of a chain.
pub(super) fn take(
    memory: &Memory,
    segments: &[Segment],
    features: Features,
    pool: &mut Pool,
) -> Result<Taken, RingFault> {
    let header_len = features.header_len();
    let len = length(segments).checked_sub(header_len as u64).filter(|len| *len >= SHORTEST);
    let Some(len) = len else { return Ok(Taken::Discarded(Discard::Truncated)) };
    if len > LONGEST {
        return Ok(Taken::Discarded(Discard::Oversize));
    }
    let len = len as usize;
    let packet = if len <= BUFFER - HEADROOM { pool.take() } else { pool.take_large() };
    let Some(mut packet) = packet else { return Ok(Taken::NoBuffer) };
    let mut header = [0; vnet::LEN];
    let room = &mut packet.room()[..len];
    let result = gather(memory, segments, &mut [&mut header[..header_len], room]);
    let good = result.map(|()| packet.set(0, len) && read_header(&header, features, &mut packet));
    match good {
        Ok(true) => Ok(Taken::Frame(packet)),
        Ok(false) => {
            pool.give(packet);
            Ok(Taken::Discarded(Discard::BadOffload))
        }
        Err(fault) => {
            pool.give(packet);
            Err(fault)
        }
    }
}

/// Calls the beginning of a chain's frame into the cache: header and frame may be apart.
#[inline]
pub(super) fn prefetch(memory: &Memory, segments: &[Segment]) {
    for segment in segments.iter().take(2) {
        memory.prefetch(segment.address, segment.len, false);
    }
}

/// `false`: the guest asks for something impossible, or that was not agreed on.
fn read_header(header: &[u8; vnet::LEN], features: Features, packet: &mut Packet) -> bool {
    let mut short = header.first_chunk().copied().unwrap_or_default();
    // No other flag has a meaning in this direction (5.1.6.2): that a checksum is right is not for a guest to say.
    short[0] &= vnet::NEEDS_CSUM;
    let Some(offload) = vnet::read(&short) else { return false };
    let end = usize::from(offload.start) + usize::from(offload.offset) + 2;
    let partial = offload.gso == Gso::None && offload.checksum == ChecksumState::Partial;
    if !features.guest_may_ask(&offload) || (partial && end > packet.bytes().len()) {
        return false;
    }
    vnet::accept(packet, offload);
    true
}

/// Copies from segments, which hold as much, into pieces.
fn gather(memory: &Memory, segments: &[Segment], pieces: &mut [&mut [u8]]) -> Result<(), RingFault> {
    let mut segments = segments.iter().copied();
    let mut from = Segment { address: 0, len: 0 };
    for piece in pieces {
        let mut left = &mut **piece;
        while !left.is_empty() {
            if from.len == 0 {
                let Some(next) = segments.next() else { return Ok(()) };
                from = next;
                continue;
            }
            let n = left.len().min(from.len as usize);
            let (now, rest) = left.split_at_mut(n);
            memory.read(from.address, now)?;
            advance(&mut from, n)?;
            left = rest;
        }
    }
    Ok(())
}

/// Copies pieces into segments, as far as they reach.
fn scatter(memory: &Memory, segments: &[Segment], pieces: &[&[u8]]) -> Result<(), RingFault> {
    let mut segments = segments.iter().copied();
    let mut to = Segment { address: 0, len: 0 };
    for piece in pieces {
        let mut left = *piece;
        while !left.is_empty() {
            if to.len == 0 {
                let Some(next) = segments.next() else { return Ok(()) };
                to = next;
                continue;
            }
            let (now, rest) = left.split_at(left.len().min(to.len as usize));
            memory.write(to.address, now)?;
            advance(&mut to, now.len())?;
            left = rest;
        }
    }
    Ok(())
}

fn advance(segment: &mut Segment, by: usize) -> Result<(), RingFault> {
    segment.address = segment.address.checked_add(by as u64).ok_or(RingFault::Unmapped)?;
    segment.len -= by as u32;
    Ok(())
}

/// What became of a frame for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    /// The guest has not made enough buffers available.
    Full,
    /// The guest's buffer is shorter, and it takes no frame in several.
    TooLong,
}

/// Receive buffers chosen for one frame. Reused from frame to frame.
#[derive(Default)]
pub(super) struct Scratch {
    segments: Vec<Segment>,
    /// Head of each chain, and the bytes it takes.
    used: Vec<(u16, u32)>,
}

/// Puts a frame, in two pieces, behind its header into a guest's receive buffers. The guest sees it once the ring is published.
pub(super) fn put(
    ring: &mut Ring,
    chain: &mut Chain,
    scratch: &mut Scratch,
    features: Features,
    header: &[u8; vnet::LEN],
    pieces: [&[u8]; 2],
) -> Result<Put, RingFault> {
    let header_len = features.header_len();
    let mut left = (header_len + pieces[0].len() + pieces[1].len()) as u64;
    scratch.segments.clear();
    scratch.used.clear();
    while left > 0 {
        let skip = scratch.used.len() as u16;
        if !ring.is_waiting(skip)? {
            return Ok(Put::Full);
        }
        let head = ring.peek(skip, chain)?;
        let room = length(chain.writable());
        // The header is not split over buffers (5.1.6.3.1).
        if room < header_len as u64 || scratch.segments.len() + chain.writable().len() > MAX_PIECES {
            return Err(RingFault::ShortBuffer);
        }
        if !features.mergeable() && room < left {
            return Ok(Put::TooLong);
        }
        let take = room.min(left);
        scratch.used.push((head, take as u32));
        // All but the last are filled.
        for Segment { address, len } in chain.writable() {
            // Word by word, as they have just been written: a wider read would wait until the writes before them, to lines of
            // the guest's core, are done.
            scratch.segments.push(Segment { address: *address, len: *len });
        }
        left -= take;
    }
    let mut header = *header;
    header[10..].copy_from_slice(&(scratch.used.len() as u16).to_le_bytes());
    let [first, second] = pieces;
    scatter(ring.memory(), &scratch.segments, &[&header[..header_len], first, second])?;
    ring.complete(&scratch.used)?;
    Ok(Put::Done)
}
