//! Turns a packet into the frames that a port sends: one frame, of which the receiver completes offloads, or one per segment.

use culvert_packet::segment::{MAX_HEADERS, Segmentation};
use culvert_packet::{ChecksumState, Gso, Offload};
use culvert_switch::{Packet, Sent};

/// Offloads that the receiver of a port's frames completes itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TxOffloads {
    /// Checksums that are left open.
    pub(crate) checksum: bool,
    /// Segmentation of TCP over IPv4.
    pub(crate) tso4: bool,
    /// Segmentation of TCP over IPv6.
    pub(crate) tso6: bool,
    /// Segmentation of UDP.
    pub(crate) uso: bool,
}

impl TxOffloads {
    /// None: the receiver gets complete frames.
    pub(crate) const NONE: Self = TxOffloads { checksum: false, tso4: false, tso6: false, uso: false };

    fn segments(self, gso: Gso) -> bool {
        match gso {
            Gso::None => true,
            Gso::TcpV4 => self.tso4,
            Gso::TcpV6 => self.tso6,
            Gso::Udp => self.uso,
        }
    }
}

/// How a packet is sent.
pub(crate) enum TxFrames {
    /// As one frame, with what the receiver has to complete. `header_len`: length of all headers if the receiver segments it.
    Whole { offload: Offload, header_len: u16 },
    /// As one complete frame for each segment.
    Segments(Segmentation),
    /// Its checksum lies outside the packet, and cannot be completed.
    BadChecksum,
    /// Its headers cannot be segmented.
    BadSegmentation,
}

impl TxFrames {
    /// Prepares a packet for a receiver. A tunnelled packet is always segmented here: few receivers segment those.
    #[inline]
    pub(crate) fn of(packet: &mut Packet, receiver: TxOffloads) -> Self {
        let offload = packet.offload;
        if offload.gso == Gso::None {
            if receiver.checksum {
                return TxFrames::Whole { offload, header_len: 0 };
            }
            if !offload.fill_checksum(packet.bytes_mut()) {
                return TxFrames::BadChecksum;
            }
            // A packet that waits in a backlog comes here again: its checksum is filled once.
            packet.offload.checksum = match offload.checksum {
                ChecksumState::Partial => ChecksumState::None,
                known => known,
            };
            return TxFrames::Whole { offload, header_len: 0 };
        }
        let Some(segments) = Segmentation::of(packet.bytes(), &offload) else {
            return TxFrames::BadSegmentation;
        };
        if receiver.segments(offload.gso) && !segments.is_encapsulated() {
            let (offload, header_len) = segments.leave_whole(packet.bytes_mut(), &offload);
            return TxFrames::Whole { offload, header_len };
        }
        TxFrames::Segments(segments)
    }
}

/// A frame to send.
pub(crate) struct TxFrame<'a> {
    /// Its bytes, in two parts.
    pub(crate) parts: [&'a [u8]; 2],
    /// What the receiver has to complete.
    pub(crate) offload: Offload,
    /// Length of all headers, if the receiver segments it.
    pub(crate) header_len: u16,
}

impl TxFrame<'_> {
    pub(crate) fn len(&self) -> usize {
        self.parts[0].len() + self.parts[1].len()
    }
}

/// Calls `put` for each frame of a packet. A packet that cannot be sent counts as refused.
#[inline]
pub(crate) fn for_each_frame<E>(
    packet: &mut Packet,
    receiver: TxOffloads,
    sent: &mut Sent,
    mut put: impl FnMut(&TxFrame<'_>, &mut Sent) -> Result<(), E>,
) -> Result<(), E> {
    match TxFrames::of(packet, receiver) {
        TxFrames::Whole { offload, header_len } => {
            put(&TxFrame { parts: [packet.bytes(), &[]], offload, header_len }, sent)
        }
        TxFrames::Segments(segments) => {
            // Each segment has its own complete checksum.
            let offload = Offload { checksum: ChecksumState::Verified, ..Offload::default() };
            let mut header = [0; MAX_HEADERS];
            for n in 0..segments.count() {
                let (len, payload) = segments.segment(packet.bytes(), n, &mut header);
                let parts = [&header[..len], &packet.bytes()[payload]];
                put(&TxFrame { parts, offload, header_len: 0 }, sent)?;
            }
            Ok(())
        }
        TxFrames::BadChecksum | TxFrames::BadSegmentation => {
            sent.refused += 1;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
