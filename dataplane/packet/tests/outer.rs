//! Outer headers: templates reproduce scapy's frames byte for byte, and each malformed frame has its reason.

mod frames;

use core::net::IpAddr;

use culvert_packet::checksum;
use culvert_packet::encap::{Fill, source_port};
use culvert_packet::{
    Encap, Family, MacAddr, OuterSpec, Reason, VlanId, craft, parse, parse_outer, peek_inner, verify_udp,
};
use frames::hex;
use proptest::prelude::*;

fn spec(encap: Encap) -> OuterSpec {
    OuterSpec {
        encap,
        src_mac: MacAddr([2, 0, 0, 0, 0, 0x10]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        vlan: None,
        src: "192.168.1.10".parse().unwrap(),
        dst: "192.168.2.20".parse().unwrap(),
    }
}

fn spec_v6(encap: Encap) -> OuterSpec {
    OuterSpec { src: "fd00:a::10".parse().unwrap(), dst: "fd00:b::20".parse().unwrap(), ..spec(encap) }
}

/// The address as `Outer` has it.
fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&a.octets());
            out
        }
        IpAddr::V6(a) => a.octets(),
    }
}

#[test]
fn templates_make_what_scapy_makes() {
    let vxlan = hex(frames::VXLAN);
    let cases = [
        (spec(Encap::Vxlan), frames::VXLAN, 50),
        (spec(Encap::Nvgre), frames::NVGRE, 42),
        (spec_v6(Encap::Vxlan), frames::VXLAN6, 70),
        (spec_v6(Encap::Nvgre), frames::NVGRE6, 62),
    ];
    for (spec, text, header_len) in cases {
        let mut expected = hex(text);
        if let Some(sum) = parse_outer(&expected).unwrap().filter(|o| o.udp_checksum != 0) {
            // scapy always has a UDP checksum in IPv6.
            let at = usize::from(sum.l4) + 6;
            expected[at..at + 2].fill(0);
        }
        let template = spec.template().unwrap();
        assert_eq!((usize::from(template.len), spec.header_len()), (header_len, header_len));
        let entropy = if spec.encap == Encap::Vxlan { 50001 } else { 0xc051 };
        let mut out = [0xaa; 256];
        let n = craft::encapsulated(&mut out, &template, 5001, entropy, &vxlan[50..]).unwrap();
        assert_eq!(out[..n], expected[..], "{spec:?}");
    }
}

#[test]
fn encapsulated_frames_are_recognised() {
    let cases = [
        (frames::VXLAN, spec(Encap::Vxlan), Family::V4, 50, 0),
        (frames::VXLAN_SUM, spec(Encap::Vxlan), Family::V4, 50, 0x71d0),
        (frames::NVGRE, spec(Encap::Nvgre), Family::V4, 42, 0),
        (frames::VXLAN6, spec_v6(Encap::Vxlan), Family::V6, 70, 0xfbf8),
        (frames::NVGRE6, spec_v6(Encap::Nvgre), Family::V6, 62, 0),
    ];
    for (text, spec, family, inner, udp_checksum) in cases {
        let mut frame = hex(text);
        let outer = parse_outer(&frame).unwrap().unwrap();
        assert_eq!(
            (outer.encap, outer.family, outer.inner, outer.inner_len),
            (spec.encap, family, inner, 48)
        );
        assert_eq!((outer.vsid, outer.tos, outer.udp_checksum), (5001, 2, udp_checksum));
        assert_eq!((outer.src, outer.dst), (bytes(spec.src), bytes(spec.dst)));
        assert_eq!(outer.flow_id, if spec.encap == Encap::Nvgre { 0x51 } else { 0 });
        assert!(verify_udp(&frame, &outer));
        // Padding, as a MAC adds it, does not count as inner frame.
        frame.extend([0; 6]);
        assert_eq!(parse_outer(&frame).unwrap().unwrap(), outer);
        // A tag of the PA network moves everything by four bytes.
        let len = frame.len();
        frame.resize(len + 4, 0);
        craft::tag(&mut frame, len, 100).unwrap();
        let tagged = parse_outer(&frame).unwrap().unwrap();
        assert_eq!((tagged.l3, tagged.l4, tagged.inner), (outer.l3 + 4, outer.l4 + 4, outer.inner + 4));
        assert_eq!((tagged.vsid, tagged.inner_len, tagged.src), (outer.vsid, outer.inner_len, outer.src));
    }
}

#[test]
fn a_peek_sees_network_and_receiver_of_common_frames() {
    for text in [frames::VXLAN, frames::VXLAN_SUM, frames::NVGRE] {
        let mut frame = hex(text);
        let outer = parse_outer(&frame).unwrap().unwrap();
        let mac = *frame[usize::from(outer.inner)..].first_chunk().unwrap();
        assert_eq!(peek_inner(&frame), Some((outer.vsid, MacAddr(mac))));
        frame[20] |= 0x20;
        assert_eq!(peek_inner(&frame), None, "a fragment");
    }
    for text in [frames::VXLAN6, frames::NVGRE6] {
        assert_eq!(peek_inner(&hex(text)), None, "the full parser's");
    }
}

#[test]
fn a_wrong_udp_checksum_shows() {
    for text in [frames::VXLAN_SUM, frames::VXLAN6] {
        let mut frame = hex(text);
        let outer = parse_outer(&frame).unwrap().unwrap();
        let last = frame.len() - 1;
        frame[last] ^= 1;
        assert!(!verify_udp(&frame, &outer));
    }
}

#[test]
fn reserved_bits_of_vxlan_are_ignored() {
    let mut frame = hex(frames::VXLAN);
    let clean = parse_outer(&frame).unwrap();
    frame[42] = 0xff;
    frame[43..46].fill(0xff);
    frame[49] = 0xff;
    assert_eq!(parse_outer(&frame).unwrap(), clean);
}

/// A frame with bytes changed, and the outer IP checksum made right again.
fn changed(text: &str, changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = hex(text);
    for &(at, value) in changes {
        frame[at] = value;
    }
    frame[24..26].fill(0);
    let sum = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn malformed_outer_headers_have_their_reasons() {
    let cases = [
        ("I flag clear", frames::VXLAN, &[(42usize, 0xf7u8)][..], Reason::VxlanNoIFlag),
        ("GRE checksum", frames::NVGRE, &[(34, 0xa0)], Reason::GreFlags),
        ("GRE sequence number", frames::NVGRE, &[(34, 0x30)], Reason::GreFlags),
        ("GRE routing", frames::NVGRE, &[(34, 0x60)], Reason::GreFlags),
        ("GRE reserved bit 5", frames::NVGRE, &[(34, 0x24)], Reason::GreFlags),
        ("GRE without key", frames::NVGRE, &[(34, 0x00)], Reason::GreNoKey),
        ("GRE version 1", frames::NVGRE, &[(35, 0x01)], Reason::GreVersion),
        ("GRE with IPv4", frames::NVGRE, &[(36, 0x08), (37, 0x00)], Reason::GreProtocol),
        ("first fragment", frames::VXLAN, &[(20, 0x20)], Reason::OuterFragment),
        ("later fragment", frames::NVGRE, &[(21, 0x01)], Reason::OuterFragment),
        ("length beyond the frame", frames::VXLAN, &[(17, 0x55)], Reason::OuterTruncated),
        ("length below the header", frames::VXLAN, &[(17, 19)], Reason::OuterBadHeader),
        ("UDP length beyond IP", frames::VXLAN, &[(39, 0x41)], Reason::OuterTruncated),
        ("UDP length below VXLAN", frames::VXLAN, &[(39, 15)], Reason::OuterTruncated),
        ("version 5", frames::VXLAN, &[(14, 0x55)], Reason::OuterBadHeader),
        ("header length 4", frames::VXLAN, &[(14, 0x44)], Reason::OuterBadHeader),
    ];
    for (what, text, changes, reason) in cases {
        assert_eq!(parse_outer(&changed(text, changes)), Err(reason), "{what}");
    }
    // Bits 6 to 12 of GRE are ignored (RFC 2784 section 2.3).
    assert!(parse_outer(&changed(frames::NVGRE, &[(34, 0x23), (35, 0xf8)])).unwrap().is_some());
    let mut frame = hex(frames::VXLAN);
    frame[25] ^= 1;
    assert_eq!(parse_outer(&frame), Err(Reason::OuterIpChecksum));
}

#[test]
fn truncated_outer_headers_are_seen() {
    for text in [frames::VXLAN, frames::NVGRE, frames::VXLAN6, frames::NVGRE6] {
        let frame = hex(text);
        for len in 0..frame.len() {
            assert_eq!(parse_outer(&frame[..len]), Err(Reason::OuterTruncated), "{len} bytes");
        }
    }
}

#[test]
fn control_traffic_is_not_encapsulated() {
    for text in [frames::ARP, frames::PING4, frames::UDP4, frames::TCP4, frames::TCP6, frames::NS] {
        assert_eq!(parse_outer(&hex(text)), Ok(None));
    }
}

#[test]
fn ip_options_in_front_of_a_tunnel_are_stepped_over() {
    let mut frame = hex(frames::NVGRE);
    // Router alert.
    frame.splice(34..34, [0x94, 4, 0, 0]);
    frame[14] = 0x46;
    frame[17] += 4;
    frame[24..26].fill(0);
    let sum = checksum::of(&frame[14..38]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let outer = parse_outer(&frame).unwrap().unwrap();
    assert_eq!((outer.l4, outer.inner, outer.vsid, outer.inner_len), (38, 46, 5001, 48));
}

#[test]
fn addresses_of_two_families_make_no_template() {
    let mixed = OuterSpec { dst: "fd00::1".parse().unwrap(), ..spec(Encap::Vxlan) };
    assert_eq!(mixed.template(), Err(Reason::Unsupported));
}

proptest! {
    #[test]
    fn what_a_template_writes_parses_back(
        nvgre in any::<bool>(),
        v6 in any::<bool>(),
        vlan in proptest::option::of(1u16..=4094),
        vsid in 4096u32..=0xff_fffe,
        hash in any::<u32>(),
        ecn in 0u8..4,
        inner in proptest::collection::vec(any::<u8>(), 14..200),
    ) {
        let encap = if nvgre { Encap::Nvgre } else { Encap::Vxlan };
        let base = if v6 { spec_v6(encap) } else { spec(encap) };
        let spec = OuterSpec { vlan: vlan.map(|v| VlanId::new(v).unwrap()), ..base };
        let fill = Fill { inner_len: inner.len(), ecn, entropy: source_port(hash), vsid };
        prop_assert!((49152..=65535).contains(&fill.entropy));
        let mut out = [0; 320];
        let n = spec.template().unwrap().write(&fill, &mut out).unwrap();
        out[n..n + inner.len()].copy_from_slice(&inner);
        let outer = parse_outer(&out[..n + inner.len()]).unwrap().unwrap();
        prop_assert_eq!((outer.encap, outer.vsid, outer.tos), (encap, vsid, ecn));
        prop_assert_eq!((usize::from(outer.inner), usize::from(outer.inner_len), outer.udp_checksum), (n, fill.inner_len, 0));
        prop_assert_eq!((outer.src, outer.dst), (bytes(spec.src), bytes(spec.dst)));
        let l4 = usize::from(outer.l4);
        if nvgre {
            prop_assert_eq!(outer.flow_id, fill.entropy as u8);
        } else {
            prop_assert_eq!(u16::from_be_bytes([out[l4], out[l4 + 1]]), fill.entropy);
        }
    }

    #[test]
    fn no_frame_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_outer(&bytes);
    }

    #[test]
    fn no_mutation_of_a_good_frame_panics(
        which in 0usize..5,
        changes in proptest::collection::vec((0usize..120, any::<u8>()), 0..6),
        length in 0usize..130,
    ) {
        let texts = [frames::VXLAN, frames::VXLAN_SUM, frames::NVGRE, frames::VXLAN6, frames::NVGRE6];
        let mut frame = hex(texts[which]);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(length);
        if frame.len() >= 34 && frame[14] == 0x45 {
            // Most mutations would otherwise end at the checksum.
            frame[24..26].fill(0);
            let sum = checksum::of(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        if let Ok(Some(outer)) = parse_outer(&frame) {
            let end = usize::from(outer.inner) + usize::from(outer.inner_len);
            prop_assert!(end <= frame.len());
            let mac = frame[usize::from(outer.inner)..].first_chunk().map(|mac| (outer.vsid, MacAddr(*mac)));
            prop_assert!(peek_inner(&frame).is_none_or(|peeked| Some(peeked) == mac));
            let _ = verify_udp(&frame, &outer);
            let _ = parse(&frame[usize::from(outer.inner)..end]);
        }
    }
}
