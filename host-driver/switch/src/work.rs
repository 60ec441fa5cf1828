//! Work: what packets cost a worker, in units of a plain frame.
//!
//! A frame that is yet to be segmented costs the port that sends it as much as its segments do, and a long one costs its
//! copies. Turns, shares of handoff rings and shares of upcalls count in these units, so that a vport gets no more of a worker
//! by sending few large frames than by sending many small ones.

use culvert_packet::Gso;

use crate::packet::Packet;

/// Work of a turn: a port's, or another worker's. Two bursts of plain frames, or a frame of 64 KiB in segments of 1,448 bytes.
pub(super) const TURN: u32 = 64;
/// The longest run of segments that is forwarded at once. The largest frame of a common TCP stream (64 KiB, MSS of 1,024 or
/// more) has no more; frames with more are forwarded in parts. Nothing is refused: a Linux guest cuts UDP in up to 128
/// (`UDP_MAX_SEGMENTS`), and TCP in 65,535 (`GSO_MAX_SEGS`) if its peer asks for a small MSS.
pub(super) const MAX_SEGMENTS: usize = 64;
/// Bytes whose copies cost as much as a plain frame.
const BYTES: usize = 4096;
/// Descriptors beyond a frame's first that cost as much as a plain frame.
const DESCRIPTORS: u64 = 8;
/// The most that is done beyond a turn: a part of a frame.
pub(super) const MAX_PACKET: u32 = MAX_SEGMENTS as u32 + (1 << 16) / BYTES as u32 + 1;
/// Large buffers that a guest's port may fill in a turn: as many bytes as a turn has.
pub(super) const LARGE_BUFFERS: usize = (TURN as usize * BYTES) >> 16;

/// The work of a packet: its frame or segments, and its bytes.
#[inline]
pub(super) fn of_packet(packet: &Packet) -> u32 {
    let len = packet.bytes().len();
    if packet.offload.gso == Gso::None && len < BYTES { 1 } else { of_large(packet, len) }
}

#[cold]
fn of_large(packet: &Packet, len: usize) -> u32 {
    (segments(packet) + len / BYTES) as u32
}

/// About how many frames a packet becomes. Its headers count as payload: this reads none of them.
#[inline]
pub(super) fn segments(packet: &Packet) -> usize {
    match packet.offload.gso {
        Gso::None => 1,
        _ => packet.bytes().len().div_ceil(usize::from(packet.offload.mss.max(1))).max(1),
    }
}

/// The work of descriptors beyond the first of each frame.
#[inline]
pub(super) fn of_descriptors(n: u64) -> u32 {
    u32::try_from(n / DESCRIPTORS).unwrap_or(u32::MAX)
}
