//! Decisions on first packets: what Microsoft's figure 8 and RFCs ask for.

mod common;

use std::sync::Arc;

use common::*;
use culvert_flow::record::Actions;
use culvert_flow::{Port, key};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr, Reason, VportId, arp, icmp, parse, tcp::Flags};
use culvert_policy::acl::AclSet;
use culvert_policy::{Decision, Input, Packet, decide};
use proptest::prelude::*;

fn sql_to_web() -> Ends {
    ends((11, "10.1.1.11"), (12, "10.1.1.12"))
}

#[test]
fn both_tenants_reach_their_own_web_server() {
    let (s, mut c) = (figure8(), connections());
    for (vport, own, web, vsid) in [(SQL, 11, 12, 5001), (FABRIKAM_SQL, 21, 22, 6001)] {
        let frame = udp(&ends((own, "10.1.1.11"), (web, "10.1.1.12")), (1000, 53));
        let f = forward(ask(&s, &mut c, Input::Vport(vport), &frame, 0).0);
        assert_eq!(f.record.key, key_of(Input::Vport(vport), &frame));
        assert_eq!(f.record.hot.actions(), Actions::PUSH_OUTER);
        assert_eq!((f.record.hot.vsid, f.record.hot.tunnel), (vsid, 7));
        let answer = udp(&ends((web, "10.1.1.12"), (own, "10.1.1.11")), (53, 1000));
        let reverse = f.reverse.expect("the answers' record");
        assert_eq!(reverse.key, key_of(wire(2, vsid), &answer), "the answer hits the record made for it");
        assert_eq!(reverse.hot.actions(), Actions::POP_OUTER);
        assert_eq!(reverse.hot.out(), Port::Vport(vport));
    }
    assert_eq!(c.len(), 2);
}

#[test]
fn the_receiving_host_makes_the_records_that_the_sender_expects() {
    let (s, mut c) = (figure8(), connections());
    let frame = syn(&ends((12, "10.1.1.12"), (11, "10.1.1.11")), (40_000, 443), Flags::SYN);
    let f = forward(ask(&s, &mut c, wire(2, 5001), &frame, 0).0);
    assert_eq!(f.record.key, key_of(wire(2, 5001), &frame));
    assert_eq!(f.record.hot.actions(), Actions::POP_OUTER | Actions::COPY_TCP_CONTROL);
    assert_eq!(
        (f.record.hot.gen_dst, f.record.hot.gen_map),
        (21, 112),
        "generations of vport and source mapping"
    );
    let answer = syn(&sql_to_web(), (443, 40_000), Flags::SYN);
    let reverse = f.reverse.expect("the answers' record");
    assert_eq!(reverse.key, key_of(Input::Vport(SQL), &answer));
    assert_eq!((reverse.hot.vsid, reverse.hot.tunnel), (5001, 7));
}

#[test]
fn the_router_leads_to_other_subnets_of_the_same_network() {
    let (s, mut c) = (figure8(), connections());
    let to_db = Ends { dst_mac: ROUTER, ..ends((11, "10.1.1.11"), (0, "10.1.2.14")) };
    let f = forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&to_db, (1, 2)), 0).0);
    let hot = f.record.hot;
    assert_eq!(hot.actions(), Actions::PUSH_OUTER | Actions::ROUTE | Actions::SET_DST_MAC);
    assert_eq!((hot.vsid, MacAddr(hot.dst_mac)), (5002, mac(14)), "the destination's subnet, RFC 7348 VNI");
    // The other host routes the answer itself: it comes in our subnet, from the router's MAC.
    let answer = Ends { src_mac: ROUTER, ..ends((0, "10.1.2.14"), (11, "10.1.1.11")) };
    assert_eq!(f.reverse.expect("a record").key, key_of(wire(2, 5001), &udp(&answer, (2, 1))));

    // On one host: both directions stay in the board.
    let to_app = Ends { dst_mac: ROUTER, ..ends((11, "10.1.1.11"), (0, "10.1.2.13")) };
    let f = forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&to_app, (1, 2)), 0).0);
    assert_eq!(f.record.hot.actions(), Actions::ROUTE | Actions::SET_DST_MAC);
    assert_eq!(f.record.hot.out(), Port::Vport(APP));
    let reverse = f.reverse.expect("a record");
    let back = Ends { dst_mac: ROUTER, ..ends((13, "10.1.2.13"), (0, "10.1.1.11")) };
    assert_eq!(reverse.key, key_of(Input::Vport(APP), &udp(&back, (2, 1))));
    assert_eq!(MacAddr(reverse.hot.dst_mac), mac(11));
}

#[track_caller]
fn dropped(input: Input, frame: &[u8], reason: Reason) {
    let (decision, trace) = ask(&figure8(), &mut connections(), input, frame, 0);
    assert_eq!(decision, Decision::Drop(reason), "{trace:?}");
}

#[test]
fn what_may_not_pass_is_dropped_with_its_reason() {
    let from_sql = Input::Vport(SQL);
    dropped(from_sql, &udp(&ends((12, "10.1.1.11"), (12, "10.1.1.12")), (1, 2)), Reason::SpoofedMac);
    dropped(from_sql, &udp(&ends((11, "10.1.1.99"), (12, "10.1.1.12")), (1, 2)), Reason::SpoofedCa);
    let mut tagged = udp(&sql_to_web(), (1, 2));
    let len = tagged.len();
    tagged.resize(len + 4, 0);
    craft::tag(&mut tagged, len, 7).expect("it fits");
    dropped(from_sql, &tagged, Reason::VlanNotAllowed);
    dropped(from_sql, &udp(&ends((11, "10.1.1.11"), (22, "10.1.1.12")), (1, 2)), Reason::Isolated);
    dropped(
        from_sql,
        &udp(&ends((11, "10.1.1.11"), (99, "10.1.1.12")), (1, 2)),
        Reason::UnknownDestinationMac,
    );
    dropped(from_sql, &syn(&sql_to_web(), (1, 23), Flags::SYN), Reason::AclDeny);
    let routed = |dst: &str| Ends { dst_mac: ROUTER, ..ends((11, "10.1.1.11"), (0, dst)) };
    dropped(from_sql, &udp(&routed("10.1.2.99"), (1, 2)), Reason::UnknownDestinationCa);
    dropped(from_sql, &udp(&routed("172.16.0.1"), (1, 2)), Reason::NoRoute);
    dropped(from_sql, &udp(&routed("10.1.1.1"), (1, 2)), Reason::ToRouter);
    dropped(from_sql, &udp(&ends((11, "10.1.1.11"), (11, "10.1.1.11")), (1, 2)), Reason::Hairpin);
    dropped(Input::Vport(VportId(77)), &udp(&sql_to_web(), (1, 2)), Reason::NoVport);

    let web_to_sql = udp(&ends((12, "10.1.1.12"), (11, "10.1.1.11")), (1, 2));
    dropped(wire(2, 5999), &web_to_sql, Reason::UnknownVsid);
    dropped(wire(3, 5001), &web_to_sql, Reason::PaNotInVsid);
    dropped(wire(2, 5001), &udp(&ends((99, "10.1.1.12"), (11, "10.1.1.11")), (1, 2)), Reason::SpoofedMac);
    dropped(wire(2, 5001), &udp(&ends((12, "10.1.1.11"), (11, "10.1.1.11")), (1, 2)), Reason::SpoofedCa);
    dropped(
        wire(2, 5001),
        &udp(&ends((12, "10.1.1.12"), (99, "10.1.1.11")), (1, 2)),
        Reason::UnknownDestinationMac,
    );
}

#[test]
fn arp_is_answered_from_policy() {
    let (s, mut c) = (figure8(), connections());
    let request = |target: &str| arp::Packet {
        operation: arp::Operation::REQUEST,
        sender_mac: mac(11),
        sender: "10.1.1.11".parse().expect("an address"),
        target_mac: MacAddr::ZERO,
        target: target.parse().expect("an address"),
    };
    for (target, answer) in [("10.1.1.12", mac(12)), ("10.1.1.1", ROUTER)] {
        let frame = built(|out| craft::arp(out, &request(target)));
        let (decision, _) = ask(&s, &mut c, Input::Vport(SQL), &frame, 0);
        let Decision::Reply(reply) = decision else { panic!("no answer for {target}: {decision:?}") };
        let parsed = arp::Packet::parse(&reply[14..]).expect("a well-formed answer");
        assert_eq!((parsed.operation, parsed.sender_mac), (arp::Operation::REPLY, answer));
        assert_eq!((parsed.target_mac, parsed.target.to_string()), (mac(11), "10.1.1.11".to_owned()));
        assert_eq!(reply[..6], mac(11).0);
    }
    dropped(Input::Vport(SQL), &built(|out| craft::arp(out, &request("10.1.1.77"))), Reason::ArpUnknown);
    dropped(Input::Vport(SQL), &built(|out| craft::arp(out, &request("10.1.1.11"))), Reason::ArpSuppressed);
}

/// RFC 4861: as with ARP, only the gateway says that it is a router.
#[test]
fn neighbour_solicitations_are_answered_from_policy() {
    let (mut s, mut c) = (figure8(), connections());
    s.subnets.get_mut(&5001).expect("Contoso's").gateways.push(ip("fd00:1::1"));
    s.vports.get_mut(&SQL).expect("Contoso's").addresses.push(ip("fd00:1::11"));
    let mut web = *s.mappings.by_ca(CONTOSO, ip("10.1.1.12")).expect("Contoso's");
    web.ca = ip("fd00:1::12");
    s.mappings.insert(web);
    let solicitation = |target: &str, mac_option| {
        let ends = ends((11, "fd00:1::11"), (0, "ff02::1:ff00:12"));
        let ends = Ends { dst_mac: MacAddr([0x33, 0x33, 0xff, 0, 0, 0x12]), ..ends };
        let target = target.parse().expect("an address");
        let message = icmp::Neighbour { solicitation: true, flags: 0, target, mac: Some(mac_option) };
        let mut frame = built(|out| craft::neighbour(out, &ends, &message));
        // Hop limit: 255 says that no router has forwarded it.
        frame[21] = 255;
        frame
    };
    for (target, answer, router) in [("fd00:1::12", mac(12), 0), ("fd00:1::1", ROUTER, 0x80)] {
        let frame = solicitation(target, mac(11));
        let (decision, _) = ask(&s, &mut c, Input::Vport(SQL), &frame, 0);
        let Decision::Reply(reply) = decision else { panic!("no answer for {target}: {decision:?}") };
        let said = icmp::Neighbour::parse(&reply[54..]).expect("a well-formed answer").expect("an answer");
        assert_eq!((said.solicitation, said.mac, said.flags), (false, Some(answer), router | 0x60));
        assert_eq!((said.target.to_string(), reply[21]), (target.to_owned(), 255));
        assert!(icmp::verify(ip(target), ip("fd00:1::11"), &reply[54..]));
    }
    let mut why = |frame: &[u8]| ask(&s, &mut c, Input::Vport(SQL), frame, 0).0;
    let drop = |reason| Decision::Drop(reason);
    assert_eq!(why(&solicitation("fd00:1::77", mac(11))), drop(Reason::ArpUnknown));
    assert_eq!(why(&solicitation("fd00:1::12", mac(12))), drop(Reason::SpoofedMac));
    let mut forwarded = solicitation("fd00:1::12", mac(11));
    forwarded[21] = 254;
    assert_eq!(why(&forwarded), drop(Reason::Unsupported));
}

/// RFC 792: the gateway says so when a packet's time is over, and is silent about errors (RFC 1812 section 4.3.2.7).
#[test]
fn the_gateway_reports_an_exceeded_ttl() {
    let (s, mut c) = (figure8(), connections());
    let to_other = Ends { dst_mac: ROUTER, ..ends((11, "10.1.1.11"), (0, "10.1.2.13")) };
    let last_hop = |mut frame: Vec<u8>| {
        frame[22] = 1;
        let sum = culvert_packet::checksum::of(&[&frame[14..24], &[0, 0], &frame[26..34]].concat());
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let probe = last_hop(udp(&to_other, (40_000, 33_434)));
    let (decision, _) = ask(&s, &mut c, Input::Vport(SQL), &probe, 0);
    let Decision::Reply(reply) = decision else { panic!("{decision:?}") };
    let headers = culvert_packet::parse(&reply).expect("a well-formed answer");
    assert_eq!((headers.protocol, headers.l4_src), (1, 11), "ICMP time exceeded");
    assert_eq!((&reply[..6], &reply[6..12]), (&mac(11).0[..], &ROUTER.0[..]));
    assert_eq!((&reply[26..30], &reply[30..34]), (&[10, 1, 1, 1][..], &[10, 1, 1, 11][..]));
    assert_eq!(reply[42..], probe[14..], "it carries what it is about");
    assert!(icmp::verify(ip("10.1.1.1"), ip("10.1.1.11"), &reply[34..]));

    let unreachable = icmp::Header { kind: icmp::v4::UNREACHABLE, ..icmp::Header::default() };
    let error = last_hop(built(|out| craft::icmp(out, &to_other, &unreachable, &[0; 28])));
    dropped(Input::Vport(SQL), &error, Reason::TtlExceeded);
}

#[test]
fn the_gateway_answers_pings() {
    let to_gateway = Ends { dst_mac: ROUTER, ..ends((11, "10.1.1.11"), (0, "10.1.1.1")) };
    let frame = built(|out| craft::ping(out, &to_gateway, 7, 3, b"payload"));
    let (decision, _) = ask(&figure8(), &mut connections(), Input::Vport(SQL), &frame, 0);
    let expected = built(|out| craft::pong(out, &to_gateway.reversed(), 7, 3, b"payload"));
    assert_eq!(decision, Decision::Reply(expected));
}

#[test]
fn answers_of_an_allowed_connection_pass_a_list_that_denies_everything() {
    let (mut s, mut c) = (figure8(), connections());
    let closed = Arc::new(AclSet { acls: vec![deny_all()] });
    s.vports.get_mut(&SQL).expect("the vport").acls_in = closed;
    let back = ends((12, "10.1.1.12"), (11, "10.1.1.11"));
    let unasked = ask(&s, &mut c, wire(2, 5001), &udp(&back, (53, 1000)), 0).0;
    assert_eq!(unasked, Decision::Drop(Reason::AclDeny));
    forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&sql_to_web(), (1000, 53)), 1).0);
    let answer = forward(ask(&s, &mut c, wire(2, 5001), &udp(&back, (53, 1000)), 2).0);
    assert_eq!(answer.record.hot.out(), Port::Vport(SQL));
    let other = ask(&s, &mut c, wire(2, 5001), &udp(&back, (53, 1001)), 3).0;
    assert_eq!(other, Decision::Drop(Reason::AclDeny), "another port is another connection");
}

#[test]
fn a_policy_that_now_denies_ends_an_existing_connection() {
    let (mut s, mut c) = (figure8(), connections());
    forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&sql_to_web(), (1000, 53)), 1).0);
    s.vports.get_mut(&SQL).expect("the vport").acls_out = Arc::new(AclSet { acls: vec![deny_all()] });
    let (decision, _) = ask(&s, &mut c, Input::Vport(SQL), &udp(&sql_to_web(), (1000, 53)), 2);
    assert_eq!(decision, Decision::Drop(Reason::AclDeny));
}

#[test]
fn broadcasts_stay_in_their_subnet() {
    let (s, mut c) = (figure8(), connections());
    let all = Ends { dst_mac: MacAddr::BROADCAST, ..ends((11, "10.1.1.11"), (0, "10.1.1.255")) };
    let f = forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&all, (1, 2)), 0).0);
    assert_eq!(f.record.hot.actions(), Actions::REPLICATE);
    assert_eq!((f.record.hot.tunnel, f.record.hot.vsid), (1, 5001));
    let from_web = Ends { dst_mac: MacAddr::BROADCAST, ..ends((12, "10.1.1.12"), (0, "10.1.1.255")) };
    let f = forward(ask(&s, &mut c, wire(2, 5001), &udp(&from_web, (1, 2)), 0).0);
    assert_eq!(f.record.hot.actions(), Actions::POP_OUTER | Actions::REPLICATE);
    assert_eq!(f.record.hot.tunnel, 2, "local vports only: nothing goes back to the wire");
}

#[test]
fn fragments_pass_but_are_not_installed() {
    let whole = udp(&sql_to_web(), (1000, 53));
    let mut first = whole;
    first[20] = 0x20;
    first[24..26].fill(0);
    let sum = culvert_packet::checksum::of(&first[14..34]);
    first[24..26].copy_from_slice(&sum.to_be_bytes());
    let f = forward(ask(&figure8(), &mut connections(), Input::Vport(SQL), &first, 0).0);
    assert_eq!(f.offload, Err(Reason::FragmentsNotOffloaded));
    assert_eq!(f.reverse, None);
}

#[test]
fn the_trace_names_layers_and_rules() {
    let (decision, trace) =
        ask(&figure8(), &mut connections(), Input::Vport(SQL), &syn(&sql_to_web(), (1, 23), Flags::SYN), 0);
    assert_eq!(decision, Decision::Drop(Reason::AclDeny));
    let steps: Vec<_> =
        trace.iter().map(|s| (s.layer.as_str(), s.rule.as_str(), s.action.as_str())).collect();
    assert!(steps.contains(&("acl", "deny-telnet", "deny")), "{steps:?}");
    assert!(steps.contains(&("bridge", "mac", "forward")), "{steps:?}");
}

proptest! {
    /// Whatever a guest or the wire sends, the decision comes, without a panic, and no frame leaves its tenant.
    #[test]
    fn hostile_frames_are_decided_on(
        mut frame in prop::collection::vec(any::<u8>(), 14..200),
        shape in 0u8..6,
        vsid in 5000u32..5003,
    ) {
        // Most of random bytes is nothing: give them the right beginning.
        let heads: [&[u8]; 6] = [&[0x08, 0, 0x45], &[0x08, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0x86, 0xdd, 0x60], &[0x81, 0], &[], &[0x08, 0]];
        let head = heads[usize::from(shape)];
        let n = head.len().min(frame.len() - 12);
        frame[12..12 + n].copy_from_slice(&head[..n]);
        frame[6..12].copy_from_slice(&mac(11).0);
        if shape == 0 && frame.len() >= 34 {
            let total = (frame.len() - 14) as u16;
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            frame[26..30].copy_from_slice(&[10, 1, 1, 11]);
            frame[..6].copy_from_slice(&mac(12).0);
        }
        let (s, c) = (figure8(), connections());
        let Ok(headers) = parse(&frame) else { return Ok(()) };
        let outbound = key::outbound(SQL, &frame, &headers);
        let inbound = key::inbound(Encap::Vxlan, vsid, 2, &frame, &headers);
        for (input, key) in [(Input::Vport(SQL), outbound), (wire(2, vsid), inbound)] {
            let packet = Packet { input, frame: &frame, headers, key };
            let (decision, _) = decide(&s, &c, &packet, 0, &mut ());
            if let Decision::Forward(f) = decision {
                prop_assert!([0, 5001, 5002].contains(&f.record.hot.vsid), "left its tenant");
            }
        }
    }
}
