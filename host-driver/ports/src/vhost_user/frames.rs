//! Frames out of a guest's transmit chains and into its receive buffers.

use culvert_packet::{ChecksumState, Gso};
use culvert_virtio::{
    GuestMemory, PinnedParts, ReceiveBuffers, Reserved, Ring, RingFault, Segment, gather, total_len,
};

use super::features::Features;
use super::status::Discard;
use super::vnet;
use culvert_switch::{BUFFER, HEADROOM, Packet, Pool};

/// Shortest frame: an Ethernet header.
const SHORTEST: u64 = 14;
/// Longest frame: what a large buffer holds.
const LONGEST: u64 = 1 << 16;

/// What a transmit chain has brought.
pub(super) enum Taken {
    Frame(Packet),
    Discarded(Discard),
    /// There is no buffer: it stays where it is.
    NoBuffer,
}

/// Takes the frame of a chain.
pub(super) fn take(
    memory: &PinnedParts,
    segments: &[Segment],
    features: Features,
    pool: &mut Pool,
) -> Result<Taken, RingFault> {
    let header_len = features.header_len();
    let len = total_len(segments).checked_sub(header_len as u64).filter(|len| *len >= SHORTEST);
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

/// Prefetches the beginning of a chain's frame: header and frame may be apart.
#[inline]
pub(super) fn prefetch(memory: &PinnedParts, segments: &[Segment]) {
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

/// Puts a frame, in two pieces, behind its header into a guest's receive buffers. The guest sees it once the ring is
/// published.
pub(super) fn put(
    ring: &mut Ring,
    parts: &PinnedParts,
    buffers: &mut ReceiveBuffers,
    features: Features,
    header: &[u8; vnet::LEN],
    pieces: [&[u8]; 2],
) -> Result<Reserved, RingFault> {
    let header_len = features.header_len();
    let len = header_len + pieces[0].len() + pieces[1].len();
    let reserved = buffers.reserve(ring, parts, header_len, len, features.mergeable())?;
    if reserved == Reserved::Done {
        let mut header = *header;
        header[10..].copy_from_slice(&buffers.count().to_le_bytes());
        let [first, second] = pieces;
        buffers.fill(ring, parts, [&header[..header_len], first, second])?;
    }
    Ok(reserved)
}
