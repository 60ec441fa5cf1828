//! Reads and writes `virtio_net_hdr` (virtio 1.2, 5.1.6): the offloads of a frame, exchanged with the kernel and with guests.

use culvert_flow::Checksum;
use culvert_packet::{ChecksumState, Gso, Offload};
use culvert_switch::Packet;

/// Length with `num_buffers`: the setting for TAPs.
pub(super) const LEN: usize = 12;
/// Length without `num_buffers`: what packet sockets use.
pub(super) const SHORT_LEN: usize = 10;

/// The checksum field holds the pseudo-header's sum only.
pub(super) const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// A flag in the GSO type: the TCP header has CWR set.
const GSO_ECN: u8 = 0x80;

/// Reads a header. `None`: the GSO type is unknown.
pub(super) fn read(header: &[u8; SHORT_LEN]) -> Option<Offload> {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let gso = match header[1] & !GSO_ECN {
        0 => Gso::None,
        GSO_TCPV4 => Gso::TcpV4,
        GSO_TCPV6 => Gso::TcpV6,
        GSO_UDP_L4 => Gso::Udp,
        _ => return None,
    };
    let mut offload = Offload { gso, ..Offload::default() };
    if gso != Gso::None {
        offload.mss = word(4);
    }
    if header[0] & NEEDS_CSUM != 0 {
        offload.checksum = ChecksumState::Partial;
        (offload.start, offload.offset) = (word(6), word(8));
    } else if header[0] & DATA_VALID != 0 {
        offload.checksum = ChecksumState::Verified;
    }
    Some(offload)
}

/// The header of a frame. `header_len`: length of the frame's own headers if it is to be segmented.
pub(super) fn write(offload: &Offload, header_len: u16) -> [u8; LEN] {
    let mut header = [0; LEN];
    let mut put = |at: usize, word: u16| header[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    if offload.gso != Gso::None {
        put(2, header_len);
        put(4, offload.mss);
    }
    if offload.checksum == ChecksumState::Partial {
        put(6, offload.start);
        put(8, offload.offset);
    }
    header[0] = match offload.checksum {
        ChecksumState::Partial => NEEDS_CSUM,
        ChecksumState::Verified => DATA_VALID,
        ChecksumState::None | ChecksumState::Bad => 0,
    };
    header[1] = match offload.gso {
        Gso::None => 0,
        Gso::TcpV4 => GSO_TCPV4,
        Gso::TcpV6 => GSO_TCPV6,
        Gso::Udp => GSO_UDP_L4,
    };
    header
}

/// Sets a received packet's offload. Completes a partial checksum, unless the packet is to be segmented: then each segment
/// gets its own. Such frames come from this host and did not pass a wire, so that the checksum counts as verified.
pub(super) fn set_offload(packet: &mut Packet, offload: Offload) {
    packet.offload = Offload { gso: offload.gso, mss: offload.mss, ..Offload::default() };
    let trusted = match offload.checksum {
        ChecksumState::Partial => offload.gso != Gso::None || offload.fill_checksum(packet.bytes_mut()),
        ChecksumState::Verified => true,
        ChecksumState::None | ChecksumState::Bad => false,
    };
    if trusted {
        (packet.checksum, packet.offload.checksum) = (Checksum::Good, ChecksumState::Verified);
    }
}
