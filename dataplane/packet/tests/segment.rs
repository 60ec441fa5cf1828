//! Segments against frames that were made one by one, and against what tshark says of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use culvert_packet::encap::Template;
use culvert_packet::{
    Encap, Gso, MacAddr, Offload, OuterSpec, VlanId, craft, parse, parse_outer, tcp, verify_udp,
};
use proptest::prelude::*;

use culvert_packet::segment::{MAX_HEADERS, Segmentation};

const ALL: u8 = !(tcp::Flags::SYN.0 | tcp::Flags::RST.0 | tcp::Flags::URG.0);

fn ends(v6: bool) -> craft::Ends {
    let address = |n: u8| match v6 {
        false => IpAddr::V4(Ipv4Addr::new(10, 1, 2, n)),
        true => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())),
    };
    let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
    craft::Ends { src_mac: mac(1), dst_mac: mac(2), src: address(1), dst: address(2) }
}

fn outer(encap: Encap, v6: bool, vlan: bool) -> Template {
    let ends = ends(v6);
    let vlan = vlan.then(|| VlanId::new(7).unwrap());
    let (src_mac, dst_mac, src, dst) = (ends.src_mac, ends.dst_mac, ends.src, ends.dst);
    OuterSpec { encap, src_mac, dst_mac, vlan, src, dst }.template().unwrap()
}

/// What a frame is made of.
#[derive(Clone, Copy, Debug)]
struct Kind {
    tcp: bool,
    v6: bool,
    /// Encapsulation, IPv6 outside, VLAN tag outside, outer UDP checksum.
    outer: Option<(Encap, bool, bool, bool)>,
}

impl Kind {
    fn all() -> Vec<Kind> {
        let mut all = Vec::new();
        for (tcp, v6) in [(true, false), (true, true), (false, false), (false, true)] {
            all.push(Kind { tcp, v6, outer: None });
            for (encap, checksum) in [(Encap::Vxlan, false), (Encap::Vxlan, true), (Encap::Nvgre, false)] {
                for (outer_v6, vlan) in [(false, false), (true, false), (false, true)] {
                    all.push(Kind { tcp, v6, outer: Some((encap, outer_v6, vlan, checksum)) });
                }
            }
        }
        all
    }

    fn offload(self, mss: u16) -> Offload {
        let gso = match (self.tcp, self.v6) {
            (false, _) => Gso::Udp,
            (true, false) => Gso::TcpV4,
            (true, true) => Gso::TcpV6,
        };
        Offload { gso, mss, ..Offload::default() }
    }

    /// The `n`th packet of a stream, whose identifications count up.
    fn frame(self, sequence: u32, flags: u8, payload: &[u8], n: u16) -> Vec<u8> {
        let (mut inner, ends) = (vec![0; payload.len() + 100], ends(self.v6));
        let len = if self.tcp {
            let (acknowledgment, flags) = (77, tcp::Flags(flags));
            let ports = tcp::Header { src_port: 40_000, dst_port: 7001, ..tcp::Header::default() };
            let header = tcp::Header { sequence, acknowledgment, flags, window: 500, ..ports };
            craft::tcp(&mut inner, &ends, &header, payload)
        } else {
            craft::udp(&mut inner, &ends, 40_000, 7000, payload)
        };
        inner.truncate(len.unwrap());
        renumber(&mut inner, 14, n);
        let Some((encap, v6, vlan, checksum)) = self.outer else { return inner };
        let mut whole = vec![0; inner.len() + 100];
        let template = outer(encap, v6, vlan);
        let len = craft::encapsulated(&mut whole, &template, 5001, 0x1234, &inner).unwrap();
        whole.truncate(len);
        renumber(&mut whole, usize::from(template.ip_offset), n);
        if checksum {
            let outer = parse_outer(&whole).unwrap().unwrap();
            let right = |sum: u16| {
                let mut summed = whole.clone();
                summed[usize::from(outer.l4) + 6..][..2].copy_from_slice(&sum.to_be_bytes());
                let outer = parse_outer(&summed).unwrap().unwrap();
                verify_udp(&summed, &outer).then_some(summed)
            };
            whole = (1..=u16::MAX).find_map(right).unwrap();
        }
        whole
    }
}

/// Gives an IPv4 header another identification. An IPv6 header has none.
fn renumber(frame: &mut [u8], l3: usize, id: u16) {
    if frame[l3] >> 4 == 4 {
        frame[l3 + 4..l3 + 6].copy_from_slice(&id.to_be_bytes());
        frame[l3 + 10..l3 + 12].fill(0);
        let sum = culvert_packet::checksum::of(&frame[l3..l3 + 20]);
        frame[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn segments(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let cut = Segmentation::of(frame, offload).expect("it can be cut");
    let mut header = [0xee; MAX_HEADERS];
    let one = |n| {
        let (len, payload) = cut.segment(frame, n, &mut header);
        [&header[..len], &frame[payload]].concat()
    };
    (0..cut.count()).map(one).collect()
}

#[test]
fn segments_are_what_would_have_been_sent_one_by_one() {
    let payload: Vec<u8> = (0..450u32).map(|n| ((n * n) >> 3) as u8).collect();
    for kind in Kind::all() {
        let start = u32::MAX - 150;
        let whole = kind.frame(start, ALL, &payload, u16::MAX);
        let cut = segments(&whole, &kind.offload(200));
        let chunks: Vec<&[u8]> = payload.chunks(200).collect();
        assert_eq!(cut.len(), 3);
        for (n, chunk) in chunks.into_iter().enumerate() {
            let mut flags = ALL;
            if n > 0 {
                flags &= !tcp::Flags::CWR.0;
            }
            if n < 2 {
                flags &= !(tcp::Flags::FIN.0 | tcp::Flags::PSH.0);
            }
            let sequence = start.wrapping_add(200 * n as u32);
            let expected = kind.frame(sequence, flags, chunk, u16::MAX.wrapping_add(n as u16));
            assert_eq!(cut[n], expected, "{kind:?}, segment {n}");
        }
    }
}

#[test]
fn a_frame_that_needs_no_cut_is_completed() {
    for kind in Kind::all() {
        let right = kind.frame(1, ALL, &[9; 100], 5);
        let headers = parse_outer(&right).unwrap().map_or(0, |outer| usize::from(outer.inner));
        let l4 = headers + usize::from(parse(&right[headers..]).unwrap().l4);
        let mut wrong = right.clone();
        wrong[l4 + if kind.tcp { 16 } else { 6 }..][..2].fill(0x55);
        assert_eq!(segments(&wrong, &kind.offload(100)), std::slice::from_ref(&right));
        assert_eq!(segments(&wrong, &kind.offload(1400)), [right]);
    }
}

#[test]
fn what_is_not_what_it_is_said_to_be_is_not_cut() {
    let kind = Kind { tcp: true, v6: false, outer: None };
    let (frame, offload) = (kind.frame(1, 0x10, &[7; 500], 1), kind.offload(100));
    assert!(Segmentation::of(&frame, &offload).is_some());
    let refused = |frame: &[u8], offload: Offload| Segmentation::of(frame, &offload).is_none();
    assert!(refused(&frame, Offload { mss: 0, ..offload }) && refused(&frame, Offload { mss: 1, ..offload }));
    for gso in [Gso::None, Gso::TcpV6, Gso::Udp] {
        assert!(refused(&frame, Offload { gso, ..offload }), "{gso:?}");
    }
    assert!(refused(&frame[..frame.len() - 1], offload) && refused(&[], offload));
    let mut fragment = frame.clone();
    fragment[20] |= 0x20;
    assert!(refused(&fragment, offload));
    let mut options = frame;
    options[46] = 0x40;
    assert!(refused(&options, offload), "a TCP header of 16 bytes");
}

#[test]
fn tshark_finds_nothing_wrong() {
    let payload: Vec<u8> = (0..2000).map(|n| n as u8).collect();
    let mut capture = Vec::new();
    // The magic number of times in microseconds, version 2.4, no time zone, the longest packet, Ethernet.
    for word in [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 1 << 16, 1] {
        capture.extend(word.to_le_bytes());
    }
    let mut frames = 0;
    for kind in Kind::all() {
        for segment in segments(&kind.frame(1, ALL, &payload, 9), &kind.offload(600)) {
            for word in [frames, 0, segment.len() as u32, segment.len() as u32] {
                capture.extend(word.to_le_bytes());
            }
            capture.extend(segment);
            frames += 1;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("segments.pcap");
    std::fs::write(&file, capture).unwrap();
    let read = |filter: &str| {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&file).args(["-Y", filter, "-T", "fields", "-e", "frame.number"]);
        for protocol in ["ip", "tcp", "udp"] {
            command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        let output = command.output().expect("tshark: `cargo xtask setup` installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    let bad = "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0";
    assert_eq!(read(&format!("_ws.malformed || {bad}")), 0);
    let good = "tcp.checksum.status == 1 || udp.checksum.status == 1";
    assert_eq!(read(good) as u32, frames, "each has a checksum that tshark has looked at");
}

proptest! {
    #[test]
    fn nothing_panics(mut frame in prop::collection::vec(any::<u8>(), 0..200), mss: u16, which in 0usize..40,
                      damage in prop::collection::vec((0usize..300, any::<u8>()), 0..8)) {
        let all = Kind::all();
        let kind = all[which % all.len()];
        let mut damaged = Kind { outer: kind.outer.map(|o| (o.0, o.1, o.2, false)), ..kind }.frame(1, ALL, &frame, 0);
        for (at, byte) in damage {
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
        }
        for frame in [&mut frame, &mut damaged] {
            let offload = kind.offload(mss);
            if let Some(cut) = Segmentation::of(frame, &offload) {
                let total: usize = segments(frame, &offload).iter().map(Vec::len).sum();
                prop_assert!(total >= cut.count());
                let _whole = cut.leave_whole(frame, &offload);
            }
        }
    }
}

#[test]
fn parts_are_cut_into_the_segments_of_the_whole() {
    let payload: Vec<u8> = (0..1050u32).map(|n| ((n * n) >> 3) as u8).collect();
    for kind in Kind::all() {
        let (whole, offload) = (kind.frame(u32::MAX - 150, ALL, &payload, u16::MAX - 1), kind.offload(100));
        let cut = Segmentation::of(&whole, &offload).expect("it can be cut");
        assert_eq!(cut.count(), 11);
        let mut header = [0xee; MAX_HEADERS];
        let parts = [0..4, 4..8, 8..11].map(|range| {
            let (len, payload) = cut.part(&whole, range, &mut header);
            [&header[..len], &whole[payload]].concat()
        });
        let all: Vec<Vec<u8>> = parts.iter().flat_map(|part| segments(part, &offload)).collect();
        assert_eq!(all, segments(&whole, &offload), "{kind:?}");
    }
}
