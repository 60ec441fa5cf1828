//! What the host sees of upcalls, and of copies of TCP segments.

use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr, OuterSpec, VportId, tcp};

use super::*;

fn fin() -> Vec<u8> {
    let ends = Ends {
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        src: [10, 1, 1, 11].into(),
        dst: [10, 1, 1, 12].into(),
    };
    let flags = tcp::Flags(tcp::Flags::FIN.0 | tcp::Flags::ACK.0);
    let header = tcp::Header { src_port: 1000, dst_port: 80, flags, ..tcp::Header::default() };
    let mut frame = [0; 128];
    let len = craft::tcp(&mut frame, &ends, &header, &[]).expect("fits");
    frame[..len].to_vec()
}

/// The frame in VXLAN, and the length of the outer headers.
fn encapsulated(inner: &[u8]) -> (Vec<u8>, u16) {
    let spec = OuterSpec {
        encap: Encap::Vxlan,
        src_mac: MacAddr([2, 0, 0, 0, 1, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 1, 2]),
        vlan: None,
        src: [192, 168, 1, 10].into(),
        dst: [192, 168, 1, 20].into(),
    };
    let mut frame = [0; 256];
    let template = spec.template().expect("one family");
    let len = craft::encapsulated(&mut frame, &template, 5001, 50_000, inner).expect("fits");
    (frame[..len].to_vec(), (len - inner.len()) as u16)
}

fn meta(input: Port, copy: Option<ControlCopy>) -> UpcallMeta {
    let offload = Offload::default();
    UpcallMeta { reason: Reason::Miss, input, ticket: None, copy, peer: 7, now: 0, offload }
}

#[test]
fn a_copy_shows_the_tenants_tcp_flags_whatever_headers_the_nic_added_or_removed() {
    let (vport, uplink) = (Port::Vport(VportId(3)), Port::Uplink(0));
    let (outbound, outer_len) = encapsulated(&fin());
    // As it left the NIC: outbound with outer headers, inbound without.
    for (input, frame, outer_len) in [(vport, outbound, outer_len), (uplink, fin(), 0), (vport, fin(), 0)] {
        let copy = Some(ControlCopy { connection: 42, outer_len });
        let packet = Upcall::parse(meta(input, copy), frame).packet.expect("parsed");
        assert_eq!(packet.headers.tcp_flags, tcp::Flags::FIN.0 | tcp::Flags::ACK.0, "{input:?}");
    }
}

#[test]
fn a_copy_that_is_shorter_than_its_outer_headers_is_no_packet() {
    let copy = Some(ControlCopy { connection: 42, outer_len: 500 });
    let upcall = Upcall::parse(meta(Port::Uplink(0), copy), fin());
    assert_eq!(upcall.packet, Err(Reason::OuterTruncated));
}

#[test]
fn a_packet_from_the_wire_has_the_key_of_its_inner_frame() {
    let inner = fin();
    let (frame, outer_len) = encapsulated(&inner);
    let upcall = Upcall::parse(meta(Port::Uplink(0), None), frame);
    let packet = upcall.packet.expect("parsed");
    assert_eq!((packet.outer.inner, packet.outer.peer, packet.outer.vsid), (outer_len, 7, 5001));
    assert_eq!(packet.key, key::inbound(Encap::Vxlan, 5001, 7, &inner, &packet.headers));
    assert_eq!(upcall.inner(), inner);
}
