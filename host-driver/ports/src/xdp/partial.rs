//! Checksums that a sender has left to its NIC, which is none: the other end of a veth, a TAP, a bridge.
//!
//! With such a frame goes a note that its checksum is yet to be completed; it does not come as far as an XDP socket. What
//! stands in the field then is the sum of the pseudo-header alone. A frame in which that is so, and whose checksum is
//! wrong, is completed here. A damaged frame passes for one once in 65,536 times, as often as it passes for a good one in
//! any case.

use std::ops::Range;

use culvert_packet::checksum::Checksum;
use culvert_packet::{ChecksumState, Encap, Family, Fragment, Offload, Protocol, parse, parse_outer};

/// A transport header whose checksum is looked at.
struct Part {
    /// Source and destination address.
    addresses: Range<usize>,
    /// From its first byte to the end of the IP packet.
    covered: Range<usize>,
    protocol: Protocol,
}

/// Completes the checksum of a frame if that was left to be done: the outer one, or else the inner one.
pub(super) fn complete(frame: &mut [u8]) {
    let Some((end, offload)) = find(frame) else { return };
    if let Some(frame) = frame.get_mut(..end) {
        // The field lies within: it was read.
        let _written = offload.fill_checksum(frame);
    }
}

/// The checksum that is to be completed, in a frame that ends there.
fn find(frame: &[u8]) -> Option<(usize, Offload)> {
    let outer = parse_outer(frame).ok().flatten();
    if let Some(outer) = &outer
        && outer.encap == Encap::Vxlan
        && outer.udp_checksum != 0
    {
        let (l3, l4) = (usize::from(outer.l3), usize::from(outer.l4));
        let end = usize::from(outer.inner) + usize::from(outer.inner_len);
        let part = Part { addresses: addresses(outer.family, l3), covered: l4..end, protocol: Protocol::UDP };
        if let Some(found) = part.left_undone(frame) {
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
    Part { addresses: addresses(headers.family, l3), covered, protocol }.left_undone(frame)
}

fn addresses(family: Family, l3: usize) -> Range<usize> {
    if family == Family::V6 { l3 + 8..l3 + 40 } else { l3 + 12..l3 + 20 }
}

impl Part {
    fn left_undone(&self, frame: &[u8]) -> Option<(usize, Offload)> {
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
