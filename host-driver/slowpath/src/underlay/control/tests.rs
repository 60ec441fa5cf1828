//! Replies to ARP and echo on the PA network, compared with bytes made by hand and the packet crate's parsers.

use culvert_packet::{Family, parse};

use super::*;

const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const GATEWAY: Neighbour = Neighbour { pa: 0, addr: Ipv4Addr::new(192, 168, 1, 1), mac: MacAddr(PEER_MAC) };

fn uplinks(vlan: Option<VlanId>) -> Uplinks {
    let mut uplinks = Uplinks::new(2, [true, true]);
    uplinks.set_pas(vec![LocalPa { addr: [192, 168, 1, 10].into(), mac: MacAddr(OUR_MAC), uplink: 0, vlan }]);
    uplinks
}

/// An ARP packet of 192.168.1.1, made by hand.
fn arp_bytes(operation: u8, target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(PEER_MAC);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(PEER_MAC);
    frame.extend([192, 168, 1, 1]);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

#[test]
fn a_request_for_our_address_is_answered_and_its_sender_learned() {
    let outcome = handle_control(&uplinks(None), 0, &arp_bytes(1, [192, 168, 1, 10]));
    assert_eq!(outcome.neighbour, Some(GATEWAY));
    let mut expected = PEER_MAC.to_vec();
    expected.extend(OUR_MAC);
    expected.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    expected.extend(OUR_MAC);
    expected.extend([192, 168, 1, 10]);
    expected.extend(PEER_MAC);
    expected.extend([192, 168, 1, 1]);
    assert_eq!(outcome.reply, Some(expected));
}

#[test]
fn requests_for_others_and_on_the_wrong_wire_are_not_answered() {
    assert_eq!(
        handle_control(&uplinks(None), 0, &arp_bytes(1, [192, 168, 1, 11])),
        ControlOutcome::default()
    );
    assert_eq!(
        handle_control(&uplinks(None), 1, &arp_bytes(1, [192, 168, 1, 10])),
        ControlOutcome::default()
    );
    let vlan = VlanId::new(7).ok();
    assert_eq!(
        handle_control(&uplinks(vlan), 0, &arp_bytes(1, [192, 168, 1, 10])),
        ControlOutcome::default()
    );
}

#[test]
fn an_announcement_updates_without_an_answer() {
    let outcome = handle_control(&uplinks(None), 0, &arp_bytes(1, [192, 168, 1, 1]));
    assert_eq!(outcome.neighbour, Some(GATEWAY));
    assert_eq!(outcome.reply, None);
}

#[test]
fn a_vlan_tag_is_required_and_used_in_the_reply() {
    let vlan = VlanId::new(7).ok();
    let mut frame = arp_bytes(1, [192, 168, 1, 10]);
    frame.splice(12..12, [0x81, 0x00, 0, 7]);
    let reply = handle_control(&uplinks(vlan), 0, &frame).reply.expect("answered");
    assert_eq!(reply[12..18], [0x81, 0x00, 0, 7, 0x08, 0x06]);
    assert_eq!(reply.len(), 14 + 4 + 28);
}

#[test]
fn an_echo_request_to_our_address_gets_a_reply() {
    let ends = craft::Ends {
        src_mac: MacAddr(PEER_MAC),
        dst_mac: MacAddr(OUR_MAC),
        src: [192, 168, 1, 1].into(),
        dst: [192, 168, 1, 10].into(),
    };
    let mut frame = [0; 128];
    let len = craft::ping(&mut frame, &ends, 3, 4, b"are you there").expect("fits");
    let reply = handle_control(&uplinks(None), 0, &frame[..len]).reply.expect("answered");
    let headers = parse(&reply).expect("well formed");
    assert_eq!((headers.family, headers.l4_src), (Family::V4, 0));
    let (ip, message) = ipv4::Header::parse(&reply[14..]).expect("IPv4");
    assert_eq!((ip.src, ip.dst), (Ipv4Addr::new(192, 168, 1, 10), Ipv4Addr::new(192, 168, 1, 1)));
    assert!(icmp::verify(ends.dst, ends.src, message));
    let (header, data) = icmp::Header::parse(message).expect("ICMP");
    assert_eq!((header.identifier(), header.sequence(), data), (3, 4, &b"are you there"[..]));

    let mut wrong = frame;
    wrong[len - 1] ^= 1;
    assert_eq!(handle_control(&uplinks(None), 0, &wrong[..len]), ControlOutcome::default());
}

#[test]
fn requests_and_announcements_parse() {
    let pa = uplinks(None).pas()[0];
    let frame = arp_request(&pa, Ipv4Addr::new(192, 168, 1, 1), Some(MacAddr(PEER_MAC))).expect("IPv4");
    let (header, payload) = ethernet::Header::parse(&frame).expect("frame");
    assert_eq!((header.dst, header.src), (MacAddr(PEER_MAC), MacAddr(OUR_MAC)));
    assert_eq!(arp::Packet::parse(payload).expect("ARP").target, Ipv4Addr::new(192, 168, 1, 1));
    let frame = arp_announcement(&pa).expect("IPv4");
    let (header, payload) = ethernet::Header::parse(&frame).expect("frame");
    assert!(header.dst.is_broadcast());
    assert!(arp::Packet::parse(payload).expect("ARP").is_gratuitous());
}

#[test]
fn garbage_leads_to_nothing() {
    for len in 0..60 {
        assert_eq!(handle_control(&uplinks(None), 0, &vec![0x81; len]), ControlOutcome::default());
    }
}
