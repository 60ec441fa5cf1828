//! A second oracle for every action: the core's frames, decoded by tshark, which is independent of our parser.

use std::io::Write as _;
use std::process::Command;

use culvert_abi::command::Op;
use culvert_abi::soc::{BoardPort, Sizes};
use culvert_flow::record::{Actions, FlowHot, FlowRecord};
use culvert_flow::tables::{Peer, Tunnel, Vport};
use culvert_flow::{HashSecret, Port, key};
use culvert_lockstep::core::Core;
use culvert_lockstep::frames::{Outer, arp, encapsulate, ethernet, ipv4, ipv6, tag, tcp, udp};
use culvert_lockstep::{Engine, Event, Input, What};
use culvert_packet::encap::OuterSpec;
use culvert_packet::{Encap, MacAddr, VportId, parse};

const A: [u8; 4] = [10, 1, 1, 11];
const B: [u8; 4] = [10, 1, 1, 12];
const MAC_A: [u8; 6] = [0, 0x1d, 0xd8, 7, 0, 1];
const MAC_B: [u8; 6] = [0, 0x1d, 0xd8, 7, 0, 2];
const ROUTER: [u8; 6] = [0, 0x1d, 0xd8, 0xff, 0, 1];

fn peer(a: [u8; 4], index: u16) -> Peer {
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&a);
    Peer { addr, family: 4, index, reserved: 0 }
}

fn core() -> Core<'static> {
    let mut core = Core::new(&Sizes::new(8));
    let tunnel = |encap, src: &str, dst: &str, vlan: Option<u16>| {
        let spec = OuterSpec {
            encap,
            src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            vlan: vlan.map(|id| culvert_packet::VlanId::new(id).expect("in range")),
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
        };
        Box::new(Tunnel::new(&spec.template().expect("one family"), 0, 1550))
    };
    let vport = |n| {
        let flags = Vport::PRESENT | Vport::UP;
        Box::new(Vport { flags, number: n, vsid: 5001, quota: 100, ..Vport::default() })
    };
    let secret = HashSecret([3; 9]);
    for what in [
        What::Configure { secret, router: MacAddr(ROUTER) },
        What::Local(vec![peer([192, 168, 1, 10], 0)]),
        What::Peers(vec![peer([192, 168, 2, 20], 1)]),
        What::Vport(0, vport(0)),
        What::Vport(1, vport(1)),
        What::Tunnel(0, tunnel(Encap::Vxlan, "192.168.1.10", "192.168.2.20", None)),
        What::Tunnel(1, tunnel(Encap::Nvgre, "192.168.1.10", "192.168.2.20", None)),
        What::Tunnel(2, tunnel(Encap::Vxlan, "192.168.1.10", "192.168.2.20", Some(77))),
        What::Tunnel(3, tunnel(Encap::Vxlan, "fd00::10", "fd00::20", None)),
    ] {
        core.run(&Event { now: 0, what }).expect("the core always answers");
    }
    core
}

/// Sends `frame` from vport 0 through a record with these actions; returns the sent frame.
fn outbound(frame: &[u8], hot: FlowHot) -> Vec<u8> {
    let headers = parse(frame).expect("a well-formed frame");
    let key = key::outbound(VportId(0), frame, &headers);
    pass(FlowRecord { key, hot, ..FlowRecord::default() }, BoardPort::Vf(0), frame)
}

fn inbound(encap: Encap, inner: &[u8], ecn: u8, hot: FlowHot) -> Vec<u8> {
    let headers = parse(inner).expect("a well-formed frame");
    let key = key::inbound(encap, 5001, 1, inner, &headers);
    let outer = Outer {
        addresses: ([192, 168, 2, 20], [192, 168, 1, 10]),
        vsid: 5001,
        nvgre: encap == Encap::Nvgre,
        ecn,
    };
    let record = FlowRecord { key, hot, ..FlowRecord::default() };
    pass(record, BoardPort::Uplink(0), &encapsulate(&outer, inner))
}

fn pass(record: FlowRecord, port: BoardPort, frame: &[u8]) -> Vec<u8> {
    let mut core = core();
    core.run(&Event { now: 1, what: What::Insert(vec![record]) }).expect("the core always answers");
    let what = What::Frame(Input { port, checksum: 0, bytes: frame.to_vec() });
    let outputs = core.run(&Event { now: 2, what }).expect("the core always answers");
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    assert_eq!(outputs[0].op, Op::Transmit, "{:?}", outputs[0]);
    outputs[0].bytes.clone()
}

fn hot(actions: Actions, tunnel: u16, out: Port) -> FlowHot {
    FlowHot {
        actions: actions.bits(),
        tunnel,
        out: out.bits(),
        vsid: 5001,
        entropy: 0xc07b,
        dst_mac: [2, 7, 7, 7, 7, 7],
        vlan: 9,
        nat_addr: [10, 9, 9, 9],
        nat_port: 4321,
        ..FlowHot::default()
    }
}

/// Fields of a frame, decoded by tshark with checksum validation. A field of several layers has all values.
fn decode(frame: &[u8], fields: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory for the capture");
    let path = dir.path().join("frame.pcap");
    let mut file = std::fs::File::create(&path).expect("the capture can be written");
    let len = (frame.len() as u32).to_le_bytes();
    // pcap: magic, version 2.4, zone, accuracy, snap length, Ethernet; then one record.
    let header = [&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0][..], &[0; 8], &[0, 0, 4, 0], &[1, 0, 0, 0]].concat();
    file.write_all(&[&header[..], &[0; 8], &len, &len, frame].concat()).expect("the capture can be written");
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&path).args(["-T", "fields", "-E", "separator=|"]);
    for option in ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE"] {
        command.args(["-o", option]);
    }
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark runs: `cargo xtask setup` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("tshark prints text");
    text.trim_end_matches('\n').split('|').map(str::to_owned).collect()
}

#[track_caller]
fn check(frame: &[u8], expected: &[(&str, &str)]) {
    let fields: Vec<&str> = expected.iter().map(|(f, _)| *f).collect();
    let values = decode(frame, &fields);
    for ((field, wanted), found) in expected.iter().zip(&values) {
        assert_eq!(found, wanted, "{field} of {frame:02x?}");
    }
}

fn tcp_frame(ttl: u8, tos: u8) -> Vec<u8> {
    let segment = tcp(&A, &B, (40_000, 443), 0x10, b"payload of a segment");
    ethernet(MAC_B, MAC_A, 0x0800, &ipv4(A, B, 6, ttl, tos, 0x4000, &segment))
}

#[test]
fn vxlan_encapsulation() {
    let out = outbound(&tcp_frame(64, 2), hot(Actions::PUSH_OUTER, 0, Port::None));
    check(
        &out,
        &[
            ("frame.protocols", "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:tcp:data"),
            ("ip.src", "192.168.1.10,10.1.1.11"),
            ("ip.checksum.status", "1,1"),
            ("ip.flags.df", "1,1"),
            ("ip.id", "0x0000,0x1234"),
            ("ip.ttl", "64,64"),
            ("ip.dsfield.ecn", "2,2"),
            ("udp.srcport", "49275"),
            ("udp.dstport", "4789"),
            ("udp.checksum", "0x0000"),
            ("vxlan.vni", "5001"),
            ("vxlan.flags", "0x0800"),
            ("vxlan.reserved8", "0"),
            ("tcp.checksum.status", "1"),
        ],
    );
}

/// RFC 826: an ARP request for a provider address is answered with the MAC that is the source of our packets.
#[test]
fn arp_requests_for_a_provider_address_are_answered() {
    let ask = |target, vlan: Option<u16>| {
        let request = arp([2, 0, 0, 0, 0, 9], [192, 168, 1, 1], target);
        let bytes = vlan.map_or(request.clone(), |id| tag(&request, id));
        let what = What::Frame(Input { port: BoardPort::Uplink(0), checksum: 0, bytes });
        core().run(&Event { now: 1, what }).expect("the core always answers").remove(0)
    };
    for vlan in [None, Some(77)] {
        let answer = ask([192, 168, 1, 10], vlan);
        assert_eq!((answer.op, answer.port), (Op::Transmit, BoardPort::Uplink(0).bits()));
        check(
            &answer.bytes,
            &[
                ("eth.dst", "02:00:00:00:00:09"),
                ("eth.src", "02:00:00:00:00:01"),
                ("vlan.id", if vlan.is_some() { "77" } else { "" }),
                ("arp.opcode", "2"),
                ("arp.src.hw_mac", "02:00:00:00:00:01"),
                ("arp.src.proto_ipv4", "192.168.1.10"),
                ("arp.dst.hw_mac", "02:00:00:00:00:09"),
                ("arp.dst.proto_ipv4", "192.168.1.1"),
            ],
        );
    }
    // Requests for another address, or in a VLAN without a provider address, go to the host.
    assert_eq!(ask([192, 168, 1, 11], None).op, Op::Upcall);
    assert_eq!(ask([192, 168, 1, 10], Some(78)).op, Op::Upcall);
}

#[test]
fn nvgre_encapsulation() {
    let out = outbound(&tcp_frame(64, 0), hot(Actions::PUSH_OUTER, 1, Port::None));
    check(
        &out,
        &[
            ("frame.protocols", "eth:ethertype:ip:gre:eth:ethertype:ip:tcp:data"),
            ("ip.checksum.status", "1,1"),
            ("gre.proto", "0x6558"),
            ("gre.flags_and_version", "0x2000"),
            // VSID 5001 << 8 | FlowID 0x7b.
            ("gre.key", "0x0013897b"),
            ("tcp.checksum.status", "1"),
        ],
    );
}

#[test]
fn encapsulation_with_outer_tag_and_in_ipv6() {
    let out = outbound(&tcp_frame(64, 0), hot(Actions::PUSH_OUTER, 2, Port::None));
    check(&out, &[("vlan.id", "77"), ("ip.checksum.status", "1,1"), ("vxlan.vni", "5001")]);
    let out = outbound(&tcp_frame(64, 1), hot(Actions::PUSH_OUTER, 3, Port::None));
    check(
        &out,
        &[
            ("ipv6.src", "fd00::10"),
            ("ipv6.tclass.ecn", "1"),
            ("ipv6.plen", "90"),
            ("vxlan.vni", "5001"),
            ("tcp.checksum.status", "1"),
        ],
    );
}

#[test]
fn routing() {
    let actions = Actions::PUSH_OUTER | Actions::ROUTE | Actions::SET_DST_MAC;
    let out = outbound(&tcp_frame(64, 0), hot(actions, 0, Port::None));
    check(
        &out,
        &[
            ("ip.ttl", "64,63"),
            ("ip.checksum.status", "1,1"),
            ("eth.src", "02:00:00:00:00:01,00:1d:d8:ff:00:01"),
            ("eth.dst", "02:00:00:00:00:02,02:07:07:07:07:07"),
            ("tcp.checksum.status", "1"),
        ],
    );
}

#[test]
fn address_and_port_translation() {
    let local = Port::Vport(VportId(1));
    let actions = Actions::SET_SRC_ADDR | Actions::SET_SRC_PORT;
    check(
        &outbound(&tcp_frame(64, 0), hot(actions, 0, local)),
        &[
            ("ip.src", "10.9.9.9"),
            ("tcp.srcport", "4321"),
            ("ip.checksum.status", "1"),
            ("tcp.checksum.status", "1"),
        ],
    );
    let datagram = udp(&A, &B, (1000, 53), b"a question");
    let frame = ethernet(MAC_B, MAC_A, 0x0800, &ipv4(A, B, 17, 64, 0, 0, &datagram));
    let actions = Actions::SET_DST_ADDR | Actions::SET_DST_PORT;
    check(
        &outbound(&frame, hot(actions, 0, local)),
        &[
            ("ip.dst", "10.9.9.9"),
            ("udp.dstport", "4321"),
            ("ip.checksum.status", "1"),
            ("udp.checksum.status", "1"),
        ],
    );
    let (s, d) = ([0xfd; 16], [0xfe; 16]);
    let frame = ethernet(MAC_B, MAC_A, 0x86dd, &ipv6(s, d, 17, 64, &udp(&s, &d, (1, 2), b"six")));
    check(&outbound(&frame, hot(actions, 0, local)), &[("ipv6.dst", "::"), ("udp.checksum.status", "1")]);
}

#[test]
fn vlan_tags() {
    let local = Port::Vport(VportId(1));
    let out = outbound(&tcp_frame(64, 0), hot(Actions::PUSH_VLAN, 0, local));
    check(&out, &[("vlan.id", "9"), ("eth.src", "00:1d:d8:07:00:01"), ("tcp.checksum.status", "1")]);
    let out = outbound(&tag(&tcp_frame(64, 0), 7), hot(Actions::POP_VLAN, 0, local));
    assert_eq!(out, tcp_frame(64, 0));
}

#[test]
fn decapsulation_gives_the_frame_back() {
    for encap in [Encap::Vxlan, Encap::Nvgre] {
        let local = Port::Vport(VportId(1));
        let out = inbound(encap, &tcp_frame(64, 2), 0, hot(Actions::POP_OUTER, 0, local));
        assert_eq!(out, tcp_frame(64, 2));
        // RFC 6040: congestion marked in the outer header is copied to the inner one.
        let out = inbound(encap, &tcp_frame(64, 2), 3, hot(Actions::POP_OUTER, 0, local));
        check(&out, &[("ip.dsfield.ecn", "3"), ("ip.checksum.status", "1"), ("tcp.checksum.status", "1")]);
    }
}
