//! The modules of single protocols: what scapy wrote is read, and written again as it was.

mod frames;

use culvert_packet::{
    EtherType, MacAddr, Protocol, Reason, arp, ethernet, icmp, ipv4, ipv6, nvgre, tcp, udp, vlan, vxlan,
};
use frames::hex;
use proptest::prelude::*;

#[test]
fn arp_request_and_its_reply() {
    let frame = hex(frames::ARP);
    let (header, rest) = ethernet::Header::parse(&frame).unwrap();
    assert_eq!((header.dst, header.ethertype), (MacAddr::BROADCAST, EtherType::ARP));
    let request = arp::Packet::parse(rest).unwrap();
    assert_eq!((request.operation, request.target), (arp::Operation::REQUEST, [10, 1, 1, 1].into()));
    let mut out = [0xff; arp::LEN];
    assert_eq!(request.emit(&mut out), Ok(arp::LEN));
    assert_eq!(out[..], rest[..]);
    let router = MacAddr([0, 0x1d, 0xd8, 0, 0, 1]);
    let reply = request.reply(router);
    assert_eq!(
        (reply.operation, reply.sender_mac, reply.sender),
        (arp::Operation::REPLY, router, request.target)
    );
    assert_eq!((reply.target_mac, reply.target), (request.sender_mac, request.sender));
    assert!(!request.is_gratuitous());
}

#[test]
fn tcp_over_ipv4_is_read_down_to_the_payload() {
    let frame = hex(frames::TCP4);
    let (_, packet) = ethernet::Header::parse(&frame).unwrap();
    let (ip, segment) = ipv4::Header::parse(packet).unwrap();
    assert_eq!(
        (ip.id, ip.dont_fragment, ip.ttl, ip.tos, ip.protocol),
        (0x1c46, true, 63, 0x2a, Protocol::TCP)
    );
    let mut out = [0; ipv4::HEADER_LEN];
    ip.emit(&mut out).unwrap();
    assert_eq!(out[..], packet[..20]);
    let (header, payload) = tcp::Header::parse(segment).unwrap();
    assert_eq!((header.sequence, header.acknowledgment, header.window), (0x1122_3344, 0x5566_7788, 502));
    assert_eq!(header.flags, tcp::Flags::PSH | tcp::Flags::ACK);
    assert!(!header.flags.is_control() && tcp::Flags::SYN.is_control());
    assert_eq!(payload, b"select 1");
    assert!(tcp::verify(ip.src.into(), ip.dst.into(), segment));
}

#[test]
fn a_wrong_inner_header_checksum_is_seen() {
    let mut packet = hex(frames::UDP4).split_off(14);
    packet[11] ^= 1;
    assert_eq!(ipv4::Header::parse(&packet), Err(Reason::BadIpChecksum));
}

#[test]
fn ipv6_headers_and_extensions() {
    let packet = hex(frames::UDP6_EXT).split_off(14);
    let (ip, payload) = ipv6::Header::parse(&packet).unwrap();
    assert_eq!((ip.next_header, ip.hop_limit, ip.flow_label), (Protocol::HOP_BY_HOP, 64, 0));
    let walk = ipv6::walk(payload, ip.next_header.0).unwrap();
    assert_eq!((walk.protocol, walk.length, walk.fragment), (Protocol::UDP, 24, None));
    let (header, data) = udp::Header::parse(&payload[24..]).unwrap();
    assert_eq!((header.src_port, header.dst_port, data), (1000, 2000, &b"odd"[..]));
    assert!(udp::verify(ip.src.into(), ip.dst.into(), &payload[24..]));

    let packet = hex(frames::TCP6).split_off(14);
    let (ip, _) = ipv6::Header::parse(&packet).unwrap();
    assert_eq!((ip.traffic_class, ip.flow_label), (0x2b, 0x12345));
    let mut out = [0; ipv6::HEADER_LEN];
    ip.emit(&mut out).unwrap();
    assert_eq!(out[..], packet[..40]);

    let packet = hex(frames::FRAG6_LATER).split_off(14);
    let (ip, payload) = ipv6::Header::parse(&packet).unwrap();
    let fragment = ipv6::walk(payload, ip.next_header.0).unwrap().fragment;
    assert_eq!(fragment, Some(ipv6::Fragment { offset: 2, more: false, id: 0xabcd_ef01 }));
}

#[test]
fn an_authentication_header_counts_in_fours() {
    // RFC 4302 section 2.2: 24 bytes are length 4.
    let mut payload = [0; 28];
    payload[..2].copy_from_slice(&[17, 4]);
    let walk = ipv6::walk(&payload, Protocol::AUTHENTICATION.0).unwrap();
    assert_eq!((walk.protocol, walk.length), (Protocol::UDP, 24));
    assert_eq!(ipv6::walk(&payload[..23], Protocol::AUTHENTICATION.0), Err(Reason::Truncated));
}

#[test]
fn neighbour_discovery_both_ways() {
    for (text, solicitation, flags) in [(frames::NS, true, 0), (frames::NA, false, 0x60)] {
        let packet = hex(text).split_off(14);
        let (ip, message) = ipv6::Header::parse(&packet).unwrap();
        assert!(icmp::verify(ip.src.into(), ip.dst.into(), message));
        let neighbour = icmp::Neighbour::parse(message).unwrap().unwrap();
        assert_eq!((neighbour.solicitation, neighbour.flags), (solicitation, flags));
        assert_eq!(neighbour.mac, Some(MacAddr([0, 0x1d, 0xd8, 7, 0, 1])));
        let mut out = [0; 32];
        assert_eq!(neighbour.emit(ip.src, ip.dst, &mut out), Ok(32));
        assert_eq!(out[..], message[..]);
        if solicitation {
            assert_eq!(ipv6::solicited_node(neighbour.target), ip.dst);
        }
    }
    // An option of length 0 would be walked for ever.
    let mut message = hex(frames::NS).split_off(54);
    message[25] = 0;
    assert_eq!(icmp::Neighbour::parse(&message), Err(Reason::BadHeaderLength));
}

#[test]
fn echo_has_identifier_and_sequence() {
    let packet = hex(frames::PING4).split_off(14);
    let (ip, message) = ipv4::Header::parse(&packet).unwrap();
    let (header, payload) = icmp::Header::parse(message).unwrap();
    assert_eq!((header.kind, header.identifier(), header.sequence()), (8, 0x1234, 5));
    let mut out = [&[0; 8], payload].concat();
    header.emit(ip.src.into(), ip.dst.into(), &mut out).unwrap();
    assert_eq!(out, message);
}

#[test]
fn tags_and_tunnel_headers_as_scapy_has_them() {
    let frame = hex(frames::VLAN_OPTIONS);
    let (tag, _) = vlan::Header::parse(&frame[14..]).unwrap();
    assert_eq!((tag.tci.priority(), tag.tci.vlan_id(), tag.tci.drop_eligible()), (5, 100, false));
    let mut out = [0xff; 8];
    assert_eq!(tag.emit(&mut out), Ok(4));
    assert_eq!(out[..4], frame[14..18]);

    let frame = hex(frames::VXLAN);
    let (header, inner) = vxlan::Header::parse(&frame[42..]).unwrap();
    assert_eq!((header.vni.get(), inner.len()), (5001, 48));
    header.emit(&mut out).unwrap();
    assert_eq!(out[..], frame[42..50]);

    let frame = hex(frames::NVGRE);
    let (header, inner) = nvgre::Header::parse(&frame[34..]).unwrap();
    assert_eq!((header.vsid.get(), header.flow_id, inner.len()), (5001, 0x51, 48));
    header.emit(&mut out).unwrap();
    assert_eq!(out[..], frame[34..42]);
}

#[test]
fn nothing_is_written_where_there_is_no_room() {
    let mut small = [0xaa; 7];
    assert_eq!(ethernet::Header::default().emit(&mut small), Err(Reason::NoBuffer));
    let local = [127, 0, 0, 1].into();
    assert_eq!(udp::Header::default().emit(local, local, &mut small), Err(Reason::NoBuffer));
    assert_eq!(tcp::Header::default().emit(local, local, &mut small), Err(Reason::NoBuffer));
    assert_eq!(icmp::Header::default().emit(local, local, &mut small), Err(Reason::NoBuffer));
    assert_eq!(small, [0xaa; 7]);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), next in any::<u8>()) {
        let _ = ethernet::Header::parse(&bytes);
        let _ = vlan::Header::parse(&bytes);
        let _ = arp::Packet::parse(&bytes);
        let _ = ipv4::Header::parse(&bytes);
        let _ = ipv6::Header::parse(&bytes);
        let _ = ipv6::walk(&bytes, next);
        let _ = tcp::Header::parse(&bytes);
        let _ = udp::Header::parse(&bytes);
        let _ = icmp::Header::parse(&bytes);
        let _ = icmp::Neighbour::parse(&bytes);
        let _ = vxlan::Header::parse(&bytes);
        let _ = nvgre::Header::parse(&bytes);
        let local = [127, 0, 0, 1].into();
        let _ = udp::verify(local, local, &bytes);
    }
}
