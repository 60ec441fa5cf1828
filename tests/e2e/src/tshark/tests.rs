//! Tests of what is asked of tshark, with frames made by hand from the RFCs.

use std::fs;
use std::path::Path;

use super::Capture;

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ether_type.to_be_bytes()[..], payload].concat()
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 168, 1, 10, 192, 168, 2, 20,
    ];
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [&header, payload].concat()
}

/// An ARP request, the inner frame.
fn inner() -> Vec<u8> {
    let mut arp =
        vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 1, 1, 11, 0, 0, 0, 0, 0, 0, 10, 1, 1, 12];
    arp.resize(46, 0);
    ethernet(0x0806, &arp)
}

fn vxlan(vni: u32) -> Vec<u8> {
    let inner = inner();
    let length = u16::try_from(16 + inner.len()).unwrap().to_be_bytes();
    let vni = vni.to_be_bytes();
    let headers = [0xc0, 0, 0x12, 0xb5, length[0], length[1], 0, 0, 8, 0, 0, 0, vni[1], vni[2], vni[3], 0];
    ethernet(0x0800, &ipv4(17, &[&headers[..], &inner].concat()))
}

fn nvgre(vsid: u32, flow: u8) -> Vec<u8> {
    let key = (vsid << 8 | u32::from(flow)).to_be_bytes();
    ethernet(0x0800, &ipv4(47, &[&[0x20, 0, 0x65, 0x58], &key[..], &inner()].concat()))
}

fn capture(folder: &Path, frames: &[Vec<u8>]) -> Capture {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [1, 0, length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
    }
    let file = folder.join("frames.pcap");
    fs::write(&file, bytes).unwrap();
    Capture::new(file)
}

#[test]
fn both_encapsulations_are_decoded_to_the_inner_frame() {
    let folder = tempfile::tempdir().unwrap();
    let capture = capture(folder.path(), &[vxlan(5001), nvgre(5001, 7), vxlan(6001)]);
    assert_eq!(capture.problems().unwrap(), Vec::<String>::new());
    let vxlan =
        capture.fields("vxlan", &["ip.src", "udp.dstport", "vxlan.vni", "arp.dst.proto_ipv4"]).unwrap();
    assert_eq!(
        vxlan,
        [["192.168.1.10", "4789", "5001", "10.1.1.12"], ["192.168.1.10", "4789", "6001", "10.1.1.12"]]
    );
    let gre = capture.fields("gre", &["gre.proto", "gre.key", "eth.src"]).unwrap();
    assert_eq!(gre, [["0x6558", "0x00138907", "02:00:00:00:00:01,02:00:00:00:00:01"]]);
    assert_eq!(capture.count("").unwrap(), 3);
    assert_eq!(capture.packets("vxlan.vni == 6001").unwrap().len(), 1);
}

#[test]
fn a_bad_checksum_and_a_cut_frame_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    let mut bad = vxlan(5001);
    bad[14 + 8] = 63;
    let mut cut = vxlan(5001);
    cut.truncate(60);
    let problems = capture(folder.path(), &[vxlan(5001), bad, cut]).problems().unwrap();
    let numbers: Vec<&str> = problems.iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(numbers, ["2", "3"], "{problems:?}");
}

#[test]
fn a_wrong_filter_is_an_error_with_tsharks_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let failure = capture(folder.path(), &[]).count("no.such.field == 1").unwrap_err();
    assert!(failure.contains("no.such.field"), "{failure}");
}
