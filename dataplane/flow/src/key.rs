//! Makes the flow key of a parsed packet.

use culvert_packet::{Encap, Family, Fragment, Headers, VportId};

use crate::record::{Direction, FlowKey};

#[inline(always)]
fn array<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    match frame.get(at..at + N).and_then(|s| s.try_into().ok()) {
        Some(bytes) => bytes,
        None => [0; N],
    }
}

/// The fields from the inner frame, which both directions share.
#[inline(always)]
fn inner(frame: &[u8], h: &Headers) -> FlowKey {
    let mut key = FlowKey {
        dst_mac: array(frame, 0),
        src_mac: array(frame, 6),
        vlan: if h.tagged { 0x8000 | h.vlan_tci & 0xfff } else { 0 },
        protocol: h.protocol,
        src_port: h.l4_src,
        dst_port: h.l4_dst,
        fragment: match h.fragment {
            Fragment::None => 0,
            Fragment::First => 1,
            Fragment::Later => 2,
        },
        ..FlowKey::default()
    };
    match h.family {
        Family::V4 => {
            key.family = 4;
            let l3 = usize::from(h.l3);
            let addresses: [u8; 8] = array(frame, l3 + 12);
            key.src[..4].copy_from_slice(&addresses[..4]);
            key.dst[..4].copy_from_slice(&addresses[4..]);
        }
        Family::V6 => {
            key.family = 6;
            let l3 = usize::from(h.l3);
            key.src = array(frame, l3 + 8);
            key.dst = array(frame, l3 + 24);
        }
        Family::Arp | Family::Other => key.dst_port = h.ethertype,
    }
    key
}

/// Key of a frame that a local vport sent.
#[inline(always)]
pub fn outbound(vport: VportId, frame: &[u8], headers: &Headers) -> FlowKey {
    FlowKey { direction: Direction::Outbound as u8, source: vport.0, ..inner(frame, headers) }
}

/// Key of the inner frame of an encapsulated packet from the wire.
#[inline(always)]
pub fn inbound(encap: Encap, vsid: u32, peer: u16, frame: &[u8], headers: &Headers) -> FlowKey {
    FlowKey {
        direction: Direction::Inbound as u8,
        encap: encap as u8,
        source: peer,
        vsid,
        ..inner(frame, headers)
    }
}
