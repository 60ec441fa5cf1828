//! Packets forwarded in software: decapsulated, encapsulated, replicated as the NIC would.

use culvert_flow::record::{Actions, Direction};
use culvert_flow::{OuterInfo, key};
use culvert_packet::encap::{OuterSpec, source_port};
use culvert_packet::{ChecksumState, Encap, VportId, craft, parse, parse_outer};

use culvert_flow::tables::Member;

use super::*;

fn inner() -> Vec<u8> {
    let ends = craft::Ends {
        src_mac: MacAddr([2, 0, 0, 0, 1, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 1, 2]),
        src: [10, 1, 1, 11].into(),
        dst: [10, 1, 1, 12].into(),
    };
    let mut frame = [0; 128];
    let len = craft::udp(&mut frame, &ends, 7, 8, b"payload").expect("fits");
    frame[..len].to_vec()
}

fn tunnel() -> (OuterSpec, Tunnel) {
    let spec = OuterSpec {
        encap: Encap::Vxlan,
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        vlan: None,
        src: [192, 168, 1, 10].into(),
        dst: [192, 168, 2, 20].into(),
    };
    (spec, Tunnel::new(&spec.template().expect("same family"), 1, 1514))
}

fn outbound(actions: Actions) -> (FlowRecord, Classified, Vec<u8>) {
    let frame = inner();
    let headers = parse(&frame).expect("well formed");
    let key = key::outbound(VportId(3), &frame, &headers);
    let hot = FlowHot {
        actions: actions.bits(),
        tunnel: 5,
        entropy: source_port(9),
        vsid: 5001,
        ..FlowHot::default()
    };
    let record = FlowRecord { key, hot, ..FlowRecord::default() };
    (record, Classified { key, headers, outer: OuterInfo::default() }, frame)
}

#[test]
fn a_frame_is_encapsulated() {
    let mut forwarder = SoftwareForwarder::default();
    forwarder.set_tunnel(5, tunnel().1);
    let (record, c, frame) = outbound(Actions::PUSH_OUTER);
    let outcome = forwarder.forward(&record, &c, (Port::Vport(VportId(3)), &Offload::default()), &frame, 0);
    let ForwardOutcome::Send(copies) = outcome else { panic!("{outcome:?}") };
    let [(Port::Uplink(1), sent)] = &copies[..] else { panic!("{copies:?}") };
    let outer = parse_outer(sent).expect("valid").expect("encapsulated");
    assert_eq!((outer.vsid, &sent[usize::from(outer.inner)..]), (5001, &frame[..]));
}

#[test]
fn a_tunnel_without_next_hop_sends_nothing() {
    let (record, c, frame) = outbound(Actions::PUSH_OUTER);
    let outcome = SoftwareForwarder::default().forward(
        &record,
        &c,
        (Port::Vport(VportId(3)), &Offload::default()),
        &frame,
        0,
    );
    assert_eq!(outcome, ForwardOutcome::Drop(Reason::NextHopUnresolved));
}

#[test]
fn a_packet_from_the_wire_is_decapsulated() {
    let (spec, _) = tunnel();
    let frame = inner();
    let mut wire = [0; 256];
    let template = spec.template().expect("same family");
    let len = craft::encapsulated(&mut wire, &template, 5001, 50_000, &frame).expect("fits");
    let headers = parse(&frame).expect("well formed");
    let key = key::inbound(Encap::Vxlan, 5001, 1, &frame, &headers);
    assert_eq!(key.direction(), Some(Direction::Inbound));
    let hot = FlowHot {
        actions: Actions::POP_OUTER.bits(),
        out: Port::Vport(VportId(4)).bits(),
        ..FlowHot::default()
    };
    let record = FlowRecord { key, hot, ..FlowRecord::default() };
    let wire_part = OuterInfo { inner: 50, inner_len: frame.len() as u16, peer: 1, vsid: 5001, ecn: 0 };
    let c = Classified { key, headers, outer: wire_part };
    let outcome = SoftwareForwarder::default().forward(
        &record,
        &c,
        (Port::Uplink(0), &Offload::default()),
        &wire[..len],
        0,
    );
    assert_eq!(outcome, ForwardOutcome::Send(vec![(Port::Vport(VportId(4)), frame)]));
}

#[test]
fn a_broadcast_goes_to_all_but_its_sender() {
    let mut forwarder = SoftwareForwarder::default();
    forwarder.set_tunnel(2, tunnel().1);
    let mut group = Group { len: 3, ..Group::default() };
    group.members[0] = Member::Port(Port::Vport(VportId(3))).bits();
    group.members[1] = Member::Tunnel(2).bits();
    group.members[2] = Member::Port(Port::Vport(VportId(4))).bits();
    forwarder.set_group(5, group);
    let (record, c, frame) = outbound(Actions::REPLICATE);
    let outcome = forwarder.forward(&record, &c, (Port::Vport(VportId(3)), &Offload::default()), &frame, 0);
    let ForwardOutcome::Send(copies) = outcome else { panic!("{outcome:?}") };
    let ports: Vec<Port> = copies.iter().map(|(port, _)| *port).collect();
    assert_eq!(ports, [Port::Uplink(1), Port::Vport(VportId(4))]);
    assert_eq!(copies[1].1, frame);
}

#[test]
fn a_partial_checksum_is_completed_or_refused() {
    let mut frame = inner();
    let right = frame.clone();
    let partial = culvert_packet::checksum::Checksum::new()
        .pseudo_ip(
            [10, 1, 1, 11].into(),
            [10, 1, 1, 12].into(),
            culvert_packet::Protocol::UDP,
            frame.len() as u32 - 34,
        )
        .sum();
    frame[40..42].copy_from_slice(&partial.to_be_bytes());
    let offload = Offload { checksum: ChecksumState::Partial, start: 34, offset: 6, ..Offload::default() };
    assert!(offload.fill_checksum(&mut frame));
    assert_eq!(frame, right);
    let wrong = Offload { start: 4000, ..offload };
    assert!(!wrong.fill_checksum(&mut frame));
}
