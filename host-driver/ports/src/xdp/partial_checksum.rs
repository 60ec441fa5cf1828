//! Completes checksums that a sender on the same host left to its NIC: behind a veth, a TAP or a bridge there is no NIC.
//!
//! The kernel marks such a frame (`CHECKSUM_PARTIAL`), but an XDP socket does not get the mark. The checksum field holds the
//! pseudo-header's sum only. A frame with that value in its field, and with a wrong checksum, is completed here. A damaged
//! frame is mistaken for such a frame once in 65,536 times, as often as for a good one.

use std::ops::Range;

use culvert_packet::checksum::Checksum;
use culvert_packet::{ChecksumState, Encap, Family, Fragment, Offload, Protocol, parse, parse_outer};

/// A transport header whose checksum may be partial.
struct Transport {
    /// Source and destination address.
    addresses: Range<usize>,
    /// From the header's first byte to the end of the IP packet.
    covered: Range<usize>,
    protocol: Protocol,
}

/// Completes the checksum of a frame if it is partial: the outer one, or else the inner one.
pub(super) fn complete(frame: &mut [u8]) {
    let Some((end, offload)) = find(frame) else { return };
    if let Some(frame) = frame.get_mut(..end) {
        // The field lies within: it was read.
        let _written = offload.fill_checksum(frame);
    }
}

/// The partial checksum, and the end of the IP packet that it covers.
fn find(frame: &[u8]) -> Option<(usize, Offload)> {
    let outer = parse_outer(frame).ok().flatten();
    if let Some(outer) = &outer
        && outer.encap == Encap::Vxlan
        && outer.udp_checksum != 0
    {
        let (l3, l4) = (usize::from(outer.l3), usize::from(outer.l4));
        let end = usize::from(outer.inner) + usize::from(outer.inner_len);
        let transport =
            Transport { addresses: addresses(outer.family, l3), covered: l4..end, protocol: Protocol::UDP };
        if let Some(found) = transport.partial(frame) {
            return Some(found);
        }
    }
    let base = outer.map_or(0, |outer| usize::from(outer.inner));
    let headers = parse(frame.get(base..)?).ok()?;
    if !headers.is_ip() || headers.fragment != Fragment::None || headers.l4 == 0 {
        return None;
    }
    let (l3, l4) = (base + usize::from(headers.l3), base + usize::from(headers.l4));
    let covered = l4..l3 + usize::from(headers.l3_len);
    let protocol = Protocol(headers.protocol);
    Transport { addresses: addresses(headers.family, l3), covered, protocol }.partial(frame)
}

fn addresses(family: Family, l3: usize) -> Range<usize> {
    if family == Family::V6 { l3 + 8..l3 + 40 } else { l3 + 12..l3 + 20 }
}

impl Transport {
    fn partial(&self, frame: &[u8]) -> Option<(usize, Offload)> {
        let offset = match self.protocol {
            Protocol::TCP => 16,
            Protocol::UDP => 6,
            _ => return None,
        };
        let covered = frame.get(self.covered.clone())?;
        let field = covered.get(offset..)?.first_chunk()?;
        let addresses = frame.get(self.addresses.clone())?;
        let (src, dst) = addresses.split_at(addresses.len() / 2);
        let mut sum = Checksum::new();
        sum.pseudo(src, dst, self.protocol, covered.len() as u32);
        if u16::from_be_bytes(*field) != sum.sum() || sum.bytes(covered).sum() == 0xffff {
            return None;
        }
        let (start, offset) = (u16::try_from(self.covered.start).ok()?, offset as u16);
        let offload = Offload { checksum: ChecksumState::Partial, start, offset, ..Offload::default() };
        Some((self.covered.end, offload))
    }
}

#[cfg(test)]
mod tests;
