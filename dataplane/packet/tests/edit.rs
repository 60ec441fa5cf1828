//! Edits: checksums stay right, hostile frames do no harm.

mod frames;

use core::net::IpAddr;

use culvert_packet::edit::{self, Transport};
use culvert_packet::{
    ChecksumState, Family, Headers, MacAddr, Offload, checksum, craft, icmp, parse, tcp, udp,
};
use frames::hex;
use proptest::prelude::*;

fn addresses(frame: &[u8], h: &Headers) -> (IpAddr, IpAddr) {
    let l3 = usize::from(h.l3);
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    if h.family == Family::V4 { (v4(l3 + 12), v4(l3 + 16)) } else { (v6(l3 + 8), v6(l3 + 24)) }
}

/// All checksums of a frame, by computing them anew.
fn is_right(frame: &[u8]) -> bool {
    let h = parse(frame).unwrap();
    let (src, dst) = addresses(frame, &h);
    let l3 = usize::from(h.l3);
    let ip =
        h.family == Family::V6 || checksum::sum(&frame[l3..l3 + usize::from(frame[l3] & 15) * 4]) == 0xffff;
    let segment = &frame[usize::from(h.l4)..l3 + usize::from(h.l3_len)];
    let transport = match h.protocol {
        6 => tcp::verify(src, dst, segment),
        17 => udp::verify(src, dst, segment),
        1 | 58 => icmp::verify(src, dst, segment),
        _ => false,
    };
    ip && transport
}

/// Frames of scapy with whole, right checksums.
const WHOLE: [&str; 8] = [
    frames::TCP4,
    frames::UDP4,
    frames::PING4,
    frames::TCP6,
    frames::UDP6_EXT,
    frames::NS,
    frames::NA,
    frames::VLAN_OPTIONS,
];

#[test]
fn scapys_checksums_are_right() {
    for text in WHOLE {
        assert!(is_right(&hex(text)), "{text}");
    }
}

#[test]
fn ttl_goes_down_and_stops_at_zero() {
    for text in WHOLE {
        let mut frame = hex(text);
        let h = parse(&frame).unwrap();
        for step in 1..=h.ttl {
            let now = parse(&frame).unwrap();
            edit::decrement_ttl(&mut frame, &now);
            assert!(is_right(&frame));
            assert_eq!(parse(&frame).unwrap().ttl, h.ttl - step);
        }
        edit::decrement_ttl(&mut frame, &h);
        assert_eq!(parse(&frame).unwrap().ttl, 0);
        assert!(is_right(&frame));
    }
}

#[test]
fn macs_are_set() {
    let mut frame = hex(frames::UDP4);
    edit::set_dst_mac(&mut frame, MacAddr([1, 2, 3, 4, 5, 6]));
    edit::set_src_mac(&mut frame, MacAddr([7, 8, 9, 10, 11, 12]));
    assert_eq!(frame[..12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn a_tag_pushed_and_popped_leaves_the_frame_as_it_was() {
    let original = hex(frames::TCP4);
    let mut buffer = vec![0; 130];
    buffer.extend(&original);
    let start = edit::push_vlan(&mut buffer, 130, 0x2064).unwrap();
    assert_eq!(start, 126);
    let h = parse(&buffer[start..]).unwrap();
    assert_eq!((h.tagged, h.vlan_tci, h.ethertype, h.l3), (true, 0x2064, 0x0800, 18));
    assert_eq!(edit::pop_vlan(&mut buffer, start), Some(130));
    assert_eq!(buffer[130..], original[..]);
    assert_eq!(edit::pop_vlan(&mut buffer, 130), None);
    assert_eq!(edit::push_vlan(&mut buffer, 3, 1), None);
    assert_eq!(edit::push_vlan(&mut buffer[..20], 10, 1), None);
}

#[test]
fn ecn_is_combined_by_the_table_of_rfc_6040() {
    // Rows: inner Not-ECT, ECT(0), ECT(1), CE. Columns: outer in the same order.
    let [not_ect, ect_0, ect_1, ce] = [0, 2, 1, 3];
    let order = [not_ect, ect_0, ect_1, ce];
    let table = [
        [Some(not_ect), Some(not_ect), Some(not_ect), None],
        [Some(ect_0), Some(ect_0), Some(ect_1), Some(ce)],
        [Some(ect_1), Some(ect_1), Some(ect_1), Some(ce)],
        [Some(ce), Some(ce), Some(ce), Some(ce)],
    ];
    for (inner, row) in order.into_iter().zip(table) {
        for (outer, expected) in order.into_iter().zip(row) {
            assert_eq!(edit::combine_ecn(inner, outer), expected, "inner {inner}, outer {outer}");
            for text in [frames::TCP4, frames::TCP6] {
                let mut frame = hex(text);
                let h = parse(&frame).unwrap();
                edit::set_tos(&mut frame, &h, h.tos & !3 | inner);
                let h = parse(&frame).unwrap();
                let before = frame.clone();
                assert_eq!(edit::decapsulate_ecn(&mut frame, &h, outer), expected.is_some());
                let after = parse(&frame).unwrap();
                assert_eq!(after.tos >> 2, h.tos >> 2);
                match expected {
                    Some(ecn) => assert_eq!(after.ecn(), ecn),
                    None => assert_eq!(frame, before),
                }
                assert!(is_right(&frame));
            }
        }
    }
    let mut arp = hex(frames::ARP);
    let h = parse(&arp).unwrap();
    assert!(edit::decapsulate_ecn(&mut arp, &h, ce));
    assert_eq!(arp, hex(frames::ARP));
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut frame = hex(frames::UDP4);
    frame[40..42].fill(0);
    let h = parse(&frame).unwrap();
    edit::set_src_addr(&mut frame, &h, &[172, 16, 0, 1]);
    edit::set_dst_port(&mut frame, &h, 5300);
    assert_eq!(frame[40..42], [0, 0]);
    assert!(is_right(&frame));
}

#[test]
fn a_udp_checksum_never_becomes_zero() {
    // One of the 65536 ports makes the checksum 0, which has to be sent as 0xffff.
    let mut seen = false;
    for port in 0..=u16::MAX {
        let mut frame = hex(frames::UDP4);
        let h = parse(&frame).unwrap();
        edit::set_src_port(&mut frame, &h, port);
        assert_ne!(frame[40..42], [0, 0]);
        seen |= frame[40..42] == [0xff, 0xff];
    }
    assert!(seen);
}

#[test]
fn a_translated_echo_has_its_new_identifier() {
    let mut frame = hex(frames::PING4);
    let h = parse(&frame).unwrap();
    edit::set_icmp_identifier(&mut frame, &h, 0xbeef);
    assert_eq!(parse(&frame).unwrap().l4_dst, 0xbeef);
    assert!(is_right(&frame));
}

#[test]
fn offload_offsets_move_with_the_frame() {
    let offload = Offload {
        checksum: ChecksumState::Partial,
        start: 34,
        offset: 6,
        inner_l3: 14,
        inner_l4: 34,
        ..Offload::default()
    };
    let moved = offload.moved_back(50).unwrap();
    assert_eq!((moved.start, moved.offset, moved.inner_l3, moved.inner_l4), (84, 6, 64, 84));
    assert_eq!(moved.outer_l3, 0);
    assert_eq!(offload.moved_back(u16::MAX), None);
    assert!(!Offload { start: 90, ..offload }.fill_checksum(&mut [0; 64]));
}

proptest! {
    #[test]
    fn rewriting_keeps_checksums_right(
        which in 0usize..WHOLE.len(),
        src in any::<[u8; 16]>(),
        dst in any::<[u8; 16]>(),
        ports in any::<(u16, u16)>(),
        tos in any::<u8>(),
    ) {
        let mut frame = hex(WHOLE[which]);
        let h = parse(&frame).unwrap();
        edit::set_src_addr(&mut frame, &h, &src);
        edit::set_dst_addr(&mut frame, &h, &dst);
        edit::set_src_port(&mut frame, &h, ports.0);
        edit::set_dst_port(&mut frame, &h, ports.1);
        edit::set_tos(&mut frame, &h, tos);
        prop_assert!(is_right(&frame));
        let after = parse(&frame).unwrap();
        prop_assert_eq!(after.tos, tos);
        let n = if h.family == Family::V4 { 4 } else { 16 };
        let octets = |a: IpAddr| match a { IpAddr::V4(a) => a.octets().to_vec(), IpAddr::V6(a) => a.octets().to_vec() };
        let (new_src, new_dst) = addresses(&frame, &after);
        prop_assert_eq!((octets(new_src), octets(new_dst)), (src[..n].to_vec(), dst[..n].to_vec()));
        if matches!(h.protocol, 6 | 17) {
            prop_assert_eq!((after.l4_src, after.l4_dst), ports);
        }
    }

    #[test]
    fn partial_checksums_stay_fillable(
        which in 0usize..5,
        src in any::<[u8; 16]>(),
        dst in any::<[u8; 16]>(),
        ports in any::<(u16, u16)>(),
    ) {
        let texts = [frames::TCP4, frames::UDP4, frames::TCP6, frames::UDP6_EXT, frames::VLAN_OPTIONS];
        let mut frame = hex(texts[which]);
        let h = parse(&frame).unwrap();
        let offset = if h.protocol == 6 { 16 } else { 6 };
        let field = usize::from(h.l4) + offset;
        // As a guest leaves it to the NIC: the sum of the pseudo-header.
        let (from, to) = addresses(&frame, &h);
        let end = usize::from(h.l3) + usize::from(h.l3_len);
        let mut pseudo = checksum::Checksum::new();
        pseudo.pseudo_ip(from, to, culvert_packet::Protocol(h.protocol), (end - usize::from(h.l4)) as u32);
        frame[field..field + 2].copy_from_slice(&pseudo.sum().to_be_bytes());
        frame.truncate(end);

        edit::set_src_addr_with(&mut frame, &h, &src, Transport::Partial);
        edit::set_dst_addr_with(&mut frame, &h, &dst, Transport::Partial);
        edit::set_src_port_with(&mut frame, &h, ports.0, Transport::Partial);
        edit::set_dst_port_with(&mut frame, &h, ports.1, Transport::Partial);
        let offload = Offload { checksum: ChecksumState::Partial, start: h.l4, offset: offset as u16, ..Offload::default() };
        prop_assert!(offload.fill_checksum(&mut frame));
        prop_assert!(is_right(&frame));
    }

    #[test]
    fn nothing_panics_and_offsets_lie_within_the_frame(
        which in 0usize..11,
        noise in proptest::collection::vec(any::<u8>(), 0..160),
        changes in proptest::collection::vec((0usize..90, any::<u8>()), 0..8),
        length in 0usize..120,
    ) {
        let texts = [
            frames::TCP4, frames::UDP4, frames::PING4, frames::TCP6, frames::UDP6_EXT, frames::NS,
            frames::FRAG6_FIRST, frames::FRAG6_LATER, frames::ARP, frames::VLAN_OPTIONS,
        ];
        let mut frame = texts.get(which).map_or(noise, |t| hex(t));
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(length);
        let Ok(h) = parse(&frame) else { return Ok(()) };
        prop_assert!(usize::from(h.l3) <= frame.len() && usize::from(h.l4) <= frame.len());
        prop_assert!(usize::from(h.l3) + usize::from(h.l3_len) <= frame.len());
        // Also on a frame that is shorter than when it was parsed.
        for cut in [frame.len(), frame.len() / 2, 0] {
            let bytes = &mut frame.clone()[..cut];
            edit::set_dst_mac(bytes, MacAddr::BROADCAST);
            edit::decrement_ttl(bytes, &h);
            edit::set_src_addr(bytes, &h, &[1, 2, 3, 4]);
            edit::set_dst_addr(bytes, &h, &[5; 16]);
            edit::set_src_port(bytes, &h, 1);
            edit::set_dst_port(bytes, &h, 2);
            edit::set_icmp_identifier(bytes, &h, 3);
            edit::decapsulate_ecn(bytes, &h, 3);
            edit::pop_vlan(bytes, 0);
            edit::push_vlan(bytes, 4, 5);
            edit::write_vlan(bytes, 6);
        }
    }

    #[test]
    fn crafted_frames_are_right(v6 in any::<bool>(), payload in proptest::collection::vec(any::<u8>(), 0..100), ports in any::<(u16, u16)>()) {
        let (src, dst) = if v6 { ("fd00:1::11", "fd00:1::12") } else { ("10.1.1.11", "10.1.1.12") };
        let ends = craft::Ends {
            src_mac: MacAddr([0, 0x1d, 0xd8, 7, 0, 1]),
            dst_mac: MacAddr([0, 0x1d, 0xd8, 7, 0, 2]),
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
        };
        let header = tcp::Header { src_port: ports.0, dst_port: ports.1, flags: tcp::Flags::SYN, ..tcp::Header::default() };
        let mut out = [0; 256];
        let n = craft::udp(&mut out, &ends, ports.0, ports.1, &payload).unwrap();
        prop_assert!(is_right(&out[..n]));
        let n = craft::tcp(&mut out, &ends, &header, &payload).unwrap();
        prop_assert!(is_right(&out[..n]));
        let n = craft::ping(&mut out, &ends, 7, 1, &payload).unwrap();
        prop_assert!(is_right(&out[..n]));
        let n = craft::pong(&mut out, &ends.reversed(), 7, 1, &payload).unwrap();
        prop_assert!(is_right(&out[..n]));
    }
}
