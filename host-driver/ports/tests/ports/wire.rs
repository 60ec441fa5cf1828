//! Frames through a packet socket, on a veth whose other end is another one.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::Duration;

use culvert_flow::Checksum::Good;
use culvert_packet::checksum::Checksum;
use culvert_packet::{ChecksumState, Offload, Protocol};
use culvert_ports::{AfPacketOptions, Filter, Tap};
use culvert_switch::{Pool, SwitchPort};

use crate::lan_host::{FdbEntry, datagram, is_ours, number};
use crate::namespace::{LIMIT, Namespace, may_begin, may_begin_with_taps, until};

const SMALL: AfPacketOptions =
    AfPacketOptions { filter: Filter::Everything, promiscuous: true, fanout: None, slots: 32, guard: false };

fn numbered(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|n| datagram(9, n, 60)).collect()
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    frames.iter().filter(|frame| is_ours(frame)).map(|frame| number(frame)).collect()
}

#[test]
fn tags_stay_in_their_frames_also_in_large_ones() {
    if !may_begin() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    let mut station = FdbEntry::on(&here, "wire", AfPacketOptions::default());
    // More than the slots were made for, so that some frames come through the socket's queue.
    here.run("ip link set wire mtu 9000");
    there.run("ip link set far mtu 9000");
    let mut sender = FdbEntry::on(&there, "far", AfPacketOptions::default());
    let mut frames = Vec::new();
    for (n, len) in [60, 1400, 1860, 1900, 1950, 4000, 8900].into_iter().enumerate() {
        for tag in [&[][..], &[0x81, 0, 0xe0, 7], &[0x88, 0xa8, 0x0f, 0xff]] {
            let mut frame = datagram(9, n as u32, len);
            frame.splice(12..12, tag.iter().copied());
            frames.push(frame);
        }
    }
    for frames in frames.chunks(5) {
        assert_eq!(sender.send(frames).packets, frames.len() as u64);
    }
    let last = frames.last().unwrap().clone();
    let mut got = station.receive_until(|frame| frame == last);
    got.retain(|frame| is_ours(frame));
    assert_eq!(got, frames);
    assert_eq!(station.port.take_rx_drops(), 0);
    assert_eq!(sender.send(&[datagram(9, 0, 9200)]).refused, 1, "longer than the MTU");
}

#[test]
fn a_checksum_that_was_left_to_hardware_is_completed_behind_a_tag() {
    if !may_begin_with_taps() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    // What a VM over there sends goes out on the wire with all that its kernel knows of it.
    let mut vm = FdbEntry::of(there.within(|| Tap::open("vm", 1500, None).unwrap()));
    there.run("tc qdisc add dev vm clsact");
    let all = "tc filter add dev vm ingress protocol all u32 match u32 0 0";
    there.run(&format!("{all} action mirred egress redirect dev far"));
    let mut station = FdbEntry::on(&here, "wire", AfPacketOptions::default());
    for tag in [&[][..], &[0x81, 0, 0x20, 5]] {
        let mut right = datagram(9, 1, 333);
        let mut partial = right.clone();
        let (src, dst) = (right[26..30].to_vec(), right[30..34].to_vec());
        let pseudo = Checksum::new().pseudo(&src, &dst, Protocol::UDP, 341).sum();
        partial[40..42].copy_from_slice(&pseudo.to_be_bytes());
        right.splice(12..12, tag.iter().copied());
        partial.splice(12..12, tag.iter().copied());
        let (checksum, start) = (ChecksumState::Partial, 34 + tag.len() as u16);
        let offload = Offload { checksum, start, offset: 6, ..Offload::default() };
        let mut packet = vm.pool.take().unwrap();
        assert!(packet.fill(&partial) && partial != right);
        packet.offload = offload;
        assert_eq!(vm.port.send(&mut vm.pool, &mut vec![packet]).unwrap().packets, 1);
        let mut got = Vec::new();
        until("it comes", || {
            station.port.receive(&mut station.pool, &mut got, 32).unwrap();
            got.iter().any(|packet| is_ours(packet.bytes()))
        });
        let ours = got.iter().find(|packet| is_ours(packet.bytes())).unwrap();
        assert_eq!(ours.bytes(), right);
        assert_eq!(ours.checksum, Good, "nobody has to look at it again");
        assert_eq!(ours.offload, Offload { checksum: ChecksumState::Verified, ..Offload::default() });
        got.into_iter().for_each(|packet| station.pool.give(packet));
    }
}

#[test]
fn what_finds_no_slot_is_counted() {
    if !may_begin() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    let mut station = FdbEntry::on(&here, "wire", SMALL);
    let mut sender = FdbEntry::on(&there, "far", SMALL);
    assert_eq!(sender.send(&numbered(0..200)).packets, 200);
    let mut got = 0;
    let mut lost = 0;
    // The kernel's own frames, of IPv6, may be among those that came and those that were lost.
    until("all are accounted for", || {
        got += station.receive().len() as u64;
        lost += station.port.take_rx_drops();
        got + lost >= 200
    });
    assert!(got >= 32 && lost >= 100, "{got} came, {lost} were lost");
    sender.send(&numbered(500..501));
    station.receive_until(|frame| is_ours(frame) && number(frame) == 500);
}

#[test]
fn other_macs_are_asked_for_where_they_are_wanted() {
    if !may_begin() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    for promiscuous in [false, true] {
        let station =
            FdbEntry::on(&here, "wire", AfPacketOptions { promiscuous, ..AfPacketOptions::default() });
        let expected = if promiscuous { "promiscuity 1 " } else { "promiscuity 0 " };
        assert!(here.run("ip -d link show wire").contains(expected));
        drop(station);
    }
}

#[test]
fn frames_wait_for_a_buffer() {
    if !may_begin() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    let mut station = FdbEntry::on(&here, "wire", AfPacketOptions::default());
    station.pool = Pool::new(8, 0).unwrap();
    let mut sender = FdbEntry::on(&there, "far", AfPacketOptions::default());
    sender.send(&numbered(0..20));
    let mut all = Vec::new();
    until("all have come", || {
        let some = station.receive();
        assert!(some.len() <= 8);
        all.extend(numbers(&some));
        all.len() == 20
    });
    assert_eq!((all, station.port.take_rx_drops()), ((0..20).collect(), 0));
    // A frame that no buffer of this pool will ever hold is not waited for.
    here.run("ip link set wire mtu 9000");
    there.run("ip link set far mtu 9000");
    sender.send(&[datagram(9, 20, 5000), datagram(9, 21, 60)]);
    let rest = station.receive_until(|frame| is_ours(frame) && number(frame) == 21);
    assert_eq!((numbers(&rest), station.port.take_rx_drops()), (vec![21], 1));
}

#[test]
fn a_sleeper_is_woken_by_a_frame() {
    if !may_begin() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    let mut station = FdbEntry::on(&here, "wire", AfPacketOptions::default());
    let mut sender = FdbEntry::on(&there, "far", AfPacketOptions::default());
    for n in 0..100 {
        until("nothing is there", || {
            station.receive();
            station.port.arm() && !station.readable(Duration::ZERO)
        });
        sender.send(&numbered(n..n + 1));
        assert!(station.readable(LIMIT) && !station.port.arm(), "frame {n}");
        station.receive_until(|frame| is_ours(frame) && number(frame) == n);
    }
}

#[test]
fn what_the_host_sends_does_not_come_back() {
    if !may_begin() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    here.run("ip addr add 198.51.100.2/24 dev wire");
    here.run("ip neigh add 198.51.100.1 lladdr 02:00:00:00:00:02 dev wire");
    for fanout in [None, Some(78)] {
        let mut station =
            FdbEntry::on(&here, "wire", AfPacketOptions { fanout, ..AfPacketOptions::default() });
        let mut far = FdbEntry::on(&there, "far", AfPacketOptions::default());
        here.within(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"from the host", "198.51.100.1:9")).unwrap();
        let from_host = |frame: &[u8]| frame.ends_with(b"from the host");
        far.receive_until(from_host);
        far.send(&numbered(0..1));
        let came = station.receive_until(is_ours);
        assert!(!came.iter().any(|frame| from_host(frame)), "{fanout:?}");
    }
}

#[test]
fn a_group_shares_frames_by_flow() {
    if !may_begin() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    let shared = AfPacketOptions { fanout: Some(77), ..AfPacketOptions::default() };
    let mut fdb = [FdbEntry::on(&here, "wire", shared), FdbEntry::on(&here, "wire", shared)];
    let mut sender = FdbEntry::on(&there, "far", AfPacketOptions::default());
    let frames: Vec<Vec<u8>> = (0..1024).map(|n| datagram(1000 + n as u16 % 64, n, 60)).collect();
    for frames in frames.chunks(64) {
        sender.send(frames);
    }
    let mut got: [Vec<u32>; 2] = [vec![], vec![]];
    until("all have come", || {
        for (station, got) in fdb.iter_mut().zip(&mut got) {
            got.extend(numbers(&station.receive()));
        }
        got[0].len() + got[1].len() >= 1024
    });
    let mut all = got.concat();
    all.sort_unstable();
    assert_eq!(all, (0..1024).collect::<Vec<u32>>(), "each once");
    let mut owner = HashMap::new();
    for (n, got) in got.iter().enumerate() {
        assert!(got.is_sorted() && got.len() > 64, "{} of 64 flows to one of two", got.len());
        for number in got {
            assert_eq!(*owner.entry(number % 64).or_insert(n), n, "a flow stays with one");
        }
    }
}
