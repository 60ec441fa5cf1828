//! Partial checksums of every kind of frame.

use culvert_packet::{Encap, MacAddr, OuterSpec, craft, verify_udp};

use super::*;

fn ends(v6: bool) -> craft::Ends {
    let [src, dst] = if v6 { ["2001:db8::1", "2001:db8::2"] } else { ["192.0.2.1", "192.0.2.2"] };
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    craft::Ends { src_mac: MacAddr([2; 6]), dst_mac: MacAddr([4; 6]), src, dst }
}

fn built(make: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    let mut frame = vec![0; 1000];
    let len = make(&mut frame);
    frame.truncate(len);
    frame
}

/// A datagram and a segment of either family, with the offsets of their checksums.
fn frames() -> Vec<(Vec<u8>, usize)> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        let l4 = if v6 { 54 } else { 34 };
        let header = culvert_packet::tcp::Header { src_port: 1, dst_port: 2, ..Default::default() };
        all.push((built(|out| craft::udp(out, &ends(v6), 1, 2, &[0xa5; 333]).unwrap()), l4 + 6));
        all.push((built(|out| craft::tcp(out, &ends(v6), &header, &[0x5a; 200]).unwrap()), l4 + 16));
    }
    all
}

/// Makes a checksum partial: stores the pseudo-header's sum in its field.
fn make_partial(frame: &mut [u8], l3: usize, field: usize) {
    let v6 = frame[l3] >> 4 == 6;
    let (addresses, l4) = if v6 { (l3 + 8..l3 + 40, l3 + 40) } else { (l3 + 12..l3 + 20, l3 + 20) };
    let protocol = if v6 { frame[l3 + 6] } else { frame[l3 + 9] };
    let (src, dst) = frame[addresses.clone()].split_at(addresses.len() / 2);
    let len = frame.len() - l4;
    let sum = Checksum::new().pseudo(src, dst, Protocol(protocol), len as u32).sum();
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn encapsulated(v6: bool, inner: &[u8], checksum: bool) -> Vec<u8> {
    let craft::Ends { src_mac, dst_mac, src, dst } = ends(v6);
    let spec = OuterSpec { encap: Encap::Vxlan, src_mac, dst_mac, vlan: None, src, dst };
    let template = spec.template().unwrap();
    let mut frame = built(|out| craft::encapsulated(out, &template, 5001, 9, inner).unwrap());
    let l4 = if v6 { 54 } else { 34 };
    if checksum {
        make_partial(&mut frame, 14, l4 + 6);
        complete(&mut frame);
    }
    frame
}

#[test]
fn a_partial_checksum_is_completed_with_padding_and_tags() {
    for (right, field) in frames() {
        for tag in [&[][..], &[0x81, 0, 0x20, 5]] {
            for padding in [0, 7] {
                let mut right = right.clone();
                let mut frame = right.clone();
                make_partial(&mut frame, 14, field);
                for frame in [&mut right, &mut frame] {
                    frame.splice(12..12, tag.iter().copied());
                    frame.extend(std::iter::repeat_n(0xee, padding));
                }
                assert_ne!(frame, right);
                complete(&mut frame);
                assert_eq!(frame, right);
            }
        }
    }
}

#[test]
fn right_and_damaged_checksums_are_not_changed() {
    for (right, _) in frames() {
        for at in [14 + 8, right.len() - 1, right.len()] {
            let mut frame = right.clone();
            frame.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x10);
            let before = frame.clone();
            complete(&mut frame);
            assert_eq!(frame, before);
        }
    }
}

#[test]
fn the_inner_checksum_of_an_encapsulated_frame_is_completed() {
    for v6 in [false, true] {
        for (inner, field) in frames() {
            let right = encapsulated(v6, &inner, false);
            let mut partial = inner.clone();
            make_partial(&mut partial, 14, field);
            let mut frame = encapsulated(v6, &partial, false);
            assert_ne!(frame, right);
            complete(&mut frame);
            assert_eq!(frame, right);
        }
    }
}

#[test]
fn the_outer_checksum_is_completed_if_it_is_used() {
    for v6 in [false, true] {
        for (inner, _) in frames() {
            let frame = encapsulated(v6, &inner, true);
            let outer = parse_outer(&frame).unwrap().unwrap();
            assert_ne!(outer.udp_checksum, 0);
            assert!(verify_udp(&frame, &outer));
        }
    }
}

#[test]
fn truncated_frames_are_not_changed() {
    for (inner, field) in frames() {
        let mut partial = inner.clone();
        make_partial(&mut partial, 14, field);
        for whole in [partial.clone(), encapsulated(true, &partial, true)] {
            for len in 0..whole.len() {
                let mut piece = whole[..len].to_vec();
                complete(&mut piece);
                assert_eq!(piece.len(), len);
            }
        }
    }
}
