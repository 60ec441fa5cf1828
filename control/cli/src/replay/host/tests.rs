//! Host 1 of figure 8, frame by frame.

use culvert_api::Bundle;
use culvert_flow::HashSecret;
use culvert_model::{Fabric, Indices, Site, host_config};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, OuterSpec, VportId};

use super::*;

const FIGURE8: &str = include_str!("../../../../../docs/examples/figure8.json");
const SQL: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]);
const WEB: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]);
const WIRE: Port = Port::Uplink(0);

/// The host, and the vport of `contoso-sql`.
fn host1() -> (Host, Port) {
    let fabric = Fabric::check(&Bundle::parse(FIGURE8).unwrap().bundle).unwrap().fabric;
    let site = Site { host: "host1".into(), entropy: HashSecret([1; 9]), vfs: 0, vmqs: 0 };
    let config = host_config(Arc::new(fabric), &site, &mut Indices::default()).unwrap();
    let (id, _) = config.snapshot.vports.iter().find(|(_, v)| v.name == "contoso-sql").unwrap();
    (Host::new(&config.snapshot).unwrap(), Port::Vport(*id))
}

fn ends() -> Ends {
    Ends { src_mac: SQL, dst_mac: WEB, src: [10, 1, 1, 11].into(), dst: [10, 1, 1, 12].into() }
}

fn udp(ends: &Ends, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; payload.len() + 128];
    let len = craft::udp(&mut frame, ends, 40_000, 53, payload).unwrap();
    frame.truncate(len);
    frame
}

fn from_host2(vsid: u32, inner: &[u8]) -> Vec<u8> {
    let spec = OuterSpec {
        encap: Encap::Vxlan,
        src_mac: NEXT_HOP,
        dst_mac: MacAddr([2, 0, 192, 168, 1, 10]),
        vlan: None,
        src: [192, 168, 2, 20].into(),
        dst: [192, 168, 1, 10].into(),
    };
    let mut frame = vec![0; inner.len() + 128];
    let len = craft::encapsulated(&mut frame, &spec.template().unwrap(), vsid, 50_000, inner).unwrap();
    frame.truncate(len);
    frame
}

fn end(replayed: &Replayed) -> (Verdict, Option<&'static str>) {
    (replayed.verdict, replayed.reason.map(Reason::as_str))
}

#[test]
fn the_first_packet_is_decided_the_next_ones_take_its_flow() {
    let (mut host, sql) = host1();
    let frame = udp(&ends(), b"question");
    let first = host.replay(sql, &frame, 0, true);
    assert_eq!(end(&first), (Verdict::Forward, Some("miss")));
    let [(Port::Uplink(0), sent)] = &first.outputs[..] else { panic!("{:?}", first.outputs) };
    assert_eq!((&sent[..6], &sent[50..]), (&NEXT_HOP.0[..], &frame[..]));
    let layers: Vec<&str> = first.layers.iter().map(|s| s.layer.as_str()).collect();
    assert!(layers.contains(&"port") && layers.contains(&"mapping"), "{layers:?}");
    let second = host.replay(sql, &frame, 1, true);
    assert_eq!((end(&second), second.layers.len()), ((Verdict::Forward, None), 0));
    // The answer has its record, too.
    let answer = {
        let mut frame = vec![0; 128];
        let len = craft::udp(&mut frame, &ends().reversed(), 53, 40_000, b"answer").unwrap();
        frame[..len].to_vec()
    };
    let answered = host.replay(WIRE, &from_host2(5001, &answer), 2, false);
    assert_eq!((end(&answered), answered.outputs), ((Verdict::Forward, None), vec![(sql, answer)]));
}

#[test]
fn forged_frames_end_with_their_reasons() {
    let (mut host, sql) = host1();
    let mut dropped = |input, frame: Vec<u8>| {
        let replayed = host.replay(input, &frame, 0, false);
        assert_eq!((replayed.verdict, replayed.outputs.len()), (Verdict::Drop, 0));
        replayed.reason.unwrap().as_str()
    };
    assert_eq!(dropped(sql, udp(&Ends { src_mac: WEB, ..ends() }, b"")), "spoofed_mac");
    assert_eq!(dropped(sql, udp(&Ends { src: [10, 1, 1, 99].into(), ..ends() }, b"")), "spoofed_ca");
    assert_eq!(dropped(sql, vec![0; 13]), "runt");
    assert_eq!(
        dropped(sql, vec![0; 2000]),
        "unsupported",
        "as on a live host, whose ports take large frames"
    );
    assert_eq!(dropped(sql, vec![0; MAX_FRAME + 1]), "too_long");
    let inner = udp(&ends().reversed(), b"x");
    assert_eq!(dropped(WIRE, from_host2(6001, &inner)), "spoofed_mac");
    assert_eq!(dropped(WIRE, from_host2(7001, &inner)), "unknown_vsid");
    let mut frame = from_host2(5001, &inner);
    frame[42] = 0;
    assert_eq!(dropped(WIRE, frame), "vxlan_no_i_flag");
    let mut frame = from_host2(5001, &inner);
    frame[40..42].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(dropped(WIRE, frame), "outer_udp_checksum");
}

#[test]
fn jumbo_frames_pass_as_on_a_live_host() {
    let (mut host, sql) = host1();
    let inner = udp(&ends().reversed(), &[7; 9000]);
    let replayed = host.replay(WIRE, &from_host2(5001, &inner), 0, false);
    assert_eq!((end(&replayed), replayed.outputs), ((Verdict::Forward, Some("miss")), vec![(sql, inner)]));
    // The provider network of this policy has an MTU of 1600.
    let sent = host.replay(sql, &udp(&ends(), &[7; 9000]), 1, false);
    assert_eq!(end(&sent), (Verdict::Drop, Some("mtu_exceeded")));
}

#[test]
fn connections_end_in_the_time_of_the_capture() {
    let (mut host, sql) = host1();
    let frame = udp(&ends(), b"");
    let mut at = |seconds: u64| host.replay(sql, &frame, seconds * 1000, false).reason.map(Reason::as_str);
    assert_eq!((at(0), at(100), at(250)), (Some("miss"), None, None), "in use every two minutes");
    assert_eq!(at(700), Some("miss"), "silent for more than three minutes");
    assert_eq!((at(600), at(0)), (None, None), "time does not go back");
    assert_eq!(at(u64::MAX / 1000), Some("miss"));
}

#[test]
fn answers_of_the_host_go_where_the_question_came_from() {
    let (mut host, sql) = host1();
    let ask = |sender_mac, sender: [u8; 4], target: [u8; 4]| {
        let question = arp::Packet {
            operation: arp::Operation::REQUEST,
            sender_mac,
            sender: sender.into(),
            target_mac: MacAddr::ZERO,
            target: target.into(),
        };
        let mut frame = [0; 64];
        let len = craft::arp(&mut frame, &question).unwrap();
        frame[..len].to_vec()
    };
    let reply = host.replay(sql, &ask(SQL, [10, 1, 1, 11], [10, 1, 1, 1]), 0, false);
    assert_eq!((reply.verdict, reply.outputs[0].0), (Verdict::Reply, sql));
    let reply = host.replay(WIRE, &ask(NEXT_HOP, [192, 168, 1, 1], [192, 168, 1, 10]), 0, false);
    assert_eq!((end(&reply), reply.outputs[0].0), ((Verdict::Reply, None), WIRE));
    let mut lldp = vec![0; 60];
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    assert_eq!(end(&host.replay(WIRE, &lldp, 0, false)), (Verdict::Host, Some("control")));
}

#[test]
fn no_frame_panics() {
    let (mut host, sql) = host1();
    let nowhere = Port::Vport(VportId(1000));
    let good = udp(&ends(), b"payload");
    let encapsulated = from_host2(5001, &udp(&ends().reversed(), b"payload"));
    for (input, frame) in [(sql, &good), (WIRE, &encapsulated), (nowhere, &good)] {
        for n in 0..frame.len() {
            host.replay(input, &frame[..n], 0, true);
            for value in [0, 1, 0x45, 0x80, 0xff] {
                let mut changed = frame.clone();
                changed[n] = value;
                host.replay(input, &changed, 0, true);
            }
        }
    }
}
