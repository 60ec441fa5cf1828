//! Copies frames from a guest's transmit chains and into its receive buffers.

use culvert_packet::{ChecksumState, Gso};
use culvert_switch::{Packet, Pool};
use culvert_virtio::{
    GuestMemory, PinnedParts, ReceiveBuffers, Reserved, Ring, RingFault, Segment, gather, total_len,
};

use super::features::Features;
use super::status::VhostUserDrop;
use crate::vnet_hdr;

/// Shortest frame: an Ethernet header.
const MIN_FRAME: u64 = 14;
/// Longest frame: what a large buffer holds.
pub(super) const MAX_FRAME: u64 = 1 << 16;

/// The content of a transmit chain.
pub(super) enum GuestTx {
    Frame(Packet),
    Dropped(VhostUserDrop),
    /// The pool is empty: the chain stays in the ring.
    NoBuffer,
}

/// Copies a chain's frame into a packet.
pub(super) fn read(
    memory: &PinnedParts,
    segments: &[Segment],
    features: Features,
    pool: &mut Pool,
) -> Result<GuestTx, RingFault> {
    let header_len = features.header_len();
    let len = total_len(segments).checked_sub(header_len as u64).filter(|len| *len >= MIN_FRAME);
    let Some(len) = len else { return Ok(GuestTx::Dropped(VhostUserDrop::Truncated)) };
    if len > MAX_FRAME {
        return Ok(GuestTx::Dropped(VhostUserDrop::Oversize));
    }
    let len = len as usize;
    let Some(mut packet) = pool.take_for(len) else { return Ok(GuestTx::NoBuffer) };
    let mut header = [0; vnet_hdr::LEN];
    let room = &mut packet.room()[..len];
    let result = gather(memory, segments, &mut [&mut header[..header_len], room]);
    let valid = result.map(|()| packet.set(0, len) && read_header(&header, features, &mut packet));
    match valid {
        Ok(true) => Ok(GuestTx::Frame(packet)),
        Ok(false) => {
            pool.give(packet);
            Ok(GuestTx::Dropped(VhostUserDrop::BadOffload))
        }
        Err(fault) => {
            pool.give(packet);
            Err(fault)
        }
    }
}

/// Prefetches the start of a chain's frame: header and frame may be in two buffers.
#[inline]
pub(super) fn prefetch(memory: &PinnedParts, segments: &[Segment]) {
    for segment in segments.iter().take(2) {
        memory.prefetch(segment.address, segment.len, false);
    }
}

/// Sets a packet's offload from its header. `false`: it is invalid, or was not negotiated.
fn read_header(header: &[u8; vnet_hdr::LEN], features: Features, packet: &mut Packet) -> bool {
    let mut short = header.first_chunk().copied().unwrap_or_default();
    // The driver may set no other flag (5.1.6.2). A guest's claim that a checksum is verified is ignored.
    short[0] &= vnet_hdr::NEEDS_CSUM;
    let Some(offload) = vnet_hdr::read(&short) else { return false };
    let end = usize::from(offload.start) + usize::from(offload.offset) + 2;
    let partial = offload.gso == Gso::None && offload.checksum == ChecksumState::Partial;
    if !features.allows(&offload) || (partial && end > packet.bytes().len()) {
        return false;
    }
    vnet_hdr::set_offload(packet, offload);
    true
}

/// Writes a header and a frame, in two parts, into a guest's receive buffers. The guest sees it when the ring is published.
pub(super) fn write(
    ring: &mut Ring,
    parts: &PinnedParts,
    buffers: &mut ReceiveBuffers,
    features: Features,
    header: &[u8; vnet_hdr::LEN],
    frame: [&[u8]; 2],
) -> Result<Reserved, RingFault> {
    let header_len = features.header_len();
    let len = header_len + frame[0].len() + frame[1].len();
    let reserved = buffers.reserve(ring, parts, header_len, len, features.mergeable())?;
    if reserved == Reserved::Done {
        let mut header = *header;
        header[10..].copy_from_slice(&buffers.count().to_le_bytes());
        let [first, second] = frame;
        buffers.fill(ring, parts, [&header[..header_len], first, second])?;
    }
    Ok(reserved)
}
