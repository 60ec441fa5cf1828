//! Frames through a packet socket, on a veth whose other end is another one.

use std::collections::HashMap;
use std::net::UdpSocket;

use culvert_flow::Checksum::Good;
use culvert_packet::checksum::Checksum;
use culvert_packet::{ChecksumState, Offload, Protocol};
use culvert_ports::{AfPacket, AfPacketOptions, Filter, Tap};
use culvert_switch::{Pool, SwitchPort};

use crate::frames::{datagram, is_ours, number, numbered, numbers};
use crate::namespace::{Namespace, can_make_namespaces, can_use_taps, wait_until};
use crate::test_port::TestPort;
use crate::{receive_checks, streams};

const SMALL: AfPacketOptions =
    AfPacketOptions { filter: Filter::Everything, promiscuous: true, fanout: None, slots: 32, guard: false };

#[test]
fn vlan_tags_stay_in_frames_of_all_lengths() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let mut near = TestPort::packet_socket(&here, "wire", AfPacketOptions::default());
    // Larger than the slots, so that some frames come through the socket's receive queue.
    here.run("ip link set wire mtu 9000");
    there.run("ip link set far mtu 9000");
    let mut sender = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
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
    let mut got = near.receive_until(|frame| frame == last);
    got.retain(|frame| is_ours(frame));
    assert_eq!(got, frames);
    assert_eq!(near.take_rx_drops(), 0);
    assert_eq!(sender.send(&[datagram(9, 0, 9200)]).refused, 1, "longer than the MTU");
}

/// Sends one datagram over IPv6 that nobody segments until a NIC would: a frame of `len` bytes more than its 62 of headers,
/// filled with `fill`.
fn send_large_datagram(from: &Namespace, len: usize, fill: u8) {
    from.within(move || {
        let socket = UdpSocket::bind("[fd00::2]:0").unwrap();
        streams::set_udp_segment(&socket, 1400);
        assert_eq!(socket.send_to(&vec![fill; len], "[fd00::1]:9").unwrap(), len);
    });
}

#[test]
fn a_frame_longer_than_any_buffer_is_counted_and_the_next_ones_are_themselves() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    there.run("ip link set far gso_max_size 131072");
    there.run("ip addr add fd00::2/64 dev far");
    there.run("ip neigh add fd00::1 lladdr 02:00:00:00:00:01 dev far");
    let mut near = TestPort::packet_socket(&here, "wire", AfPacketOptions::default());
    let mut fill = 0;
    let mut received = |near: &mut TestPort<AfPacket>, lens: &[usize], lost: u64| {
        let expected: Vec<(usize, u8)> = lens
            .iter()
            .map(|len| {
                fill += 1;
                (len + 62, fill)
            })
            .collect();
        let mut sent = expected.clone();
        // 65,507 bytes are the most that a datagram has.
        if lost > 0 {
            sent.insert(1, (65_507 + 62, 99));
        }
        sent.iter().for_each(|(len, fill)| send_large_datagram(&there, len - 62, *fill));
        let (mut got, mut too_long) = (Vec::new(), 0);
        wait_until("all have come", || {
            let frames = near.receive().into_iter().filter(|frame| frame.len() > 1500);
            got.extend(frames.map(|frame| {
                let fill = frame[62];
                assert!(frame[62..].iter().all(|byte| *byte == fill), "one frame's bytes");
                (frame.len(), fill)
            }));
            too_long += near.port.take_rx_too_long();
            got.len() + too_long as usize >= sent.len()
        });
        assert_eq!((got, too_long, near.take_rx_drops()), (expected, lost, 0));
    };
    received(&mut near, &[5000, 6000], 0);
    received(&mut near, &[7000, 8000, 9000, 7000, 7000, 20_000], 1);
    received(&mut near, &[65_400, 7001, 3000], 1);
    // Without a large buffer: dropped, and in step.
    near.pool = Pool::new(64, 0).unwrap();
    send_large_datagram(&there, 5000, 1);
    let mut dropped = 0;
    wait_until("it is counted", || {
        near.receive();
        dropped += near.take_rx_drops();
        dropped == 1
    });
    near.pool = Pool::new(64, 4).unwrap();
    received(&mut near, &[4000, 7002, 3001], 0);
}

#[test]
fn a_partial_checksum_is_completed_behind_a_tag() {
    if !can_use_taps() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    // What a VM there sends passes the veth with its offloads.
    let mut vm = TestPort::new(there.within(|| Tap::open("vm", 1500, None).unwrap()));
    there.redirect("vm", "far");
    let mut near = TestPort::packet_socket(&here, "wire", AfPacketOptions::default());
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
        wait_until("it comes", || {
            near.port.receive(&mut near.pool, &mut got, 32).unwrap();
            got.iter().any(|packet| is_ours(packet.bytes()))
        });
        let ours = got.iter().find(|packet| is_ours(packet.bytes())).unwrap();
        assert_eq!(ours.bytes(), right);
        assert_eq!(ours.checksum, Good, "its checksum needs no second check");
        assert_eq!(ours.offload, Offload { checksum: ChecksumState::Verified, ..Offload::default() });
        got.into_iter().for_each(|packet| near.pool.give(packet));
    }
}

#[test]
fn frames_without_a_slot_are_counted() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let mut near = TestPort::packet_socket(&here, "wire", SMALL);
    let mut sender = TestPort::packet_socket(&there, "far", SMALL);
    assert_eq!(sender.send(&numbered(0..200, 60)).packets, 200);
    let mut got = 0;
    let mut lost = 0;
    // The kernel's own frames, of IPv6, may be among the received and the lost ones.
    wait_until("all are accounted for", || {
        got += near.receive().len() as u64;
        lost += near.take_rx_drops();
        got + lost >= 200
    });
    assert!(got >= 32 && lost >= 100, "{got} came, {lost} were lost");
    sender.send(&numbered(500..501, 60));
    near.receive_until(|frame| is_ours(frame) && number(frame) == 500);
}

#[test]
fn the_interface_is_promiscuous_only_if_wanted() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    for promiscuous in [false, true] {
        let near = TestPort::packet_socket(
            &here,
            "wire",
            AfPacketOptions { promiscuous, ..AfPacketOptions::default() },
        );
        let expected = if promiscuous { "promiscuity 1 " } else { "promiscuity 0 " };
        assert!(here.run("ip -d link show wire").contains(expected));
        drop(near);
    }
}

#[test]
fn frames_wait_for_a_buffer() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let near = TestPort::packet_socket(&here, "wire", AfPacketOptions::default());
    let far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    receive_checks::frames_wait_for_a_buffer(near, far, || {
        here.run("ip link set wire mtu 9000");
        there.run("ip link set far mtu 9000");
    });
}

#[test]
fn a_frame_wakes_a_sleeping_reader() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let near = TestPort::packet_socket(&here, "wire", AfPacketOptions::default());
    let far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    receive_checks::a_frame_wakes_a_sleeping_reader(near, far);
}

#[test]
fn frames_that_the_host_sends_are_not_received() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    here.run("ip addr add 198.51.100.2/24 dev wire");
    here.run("ip neigh add 198.51.100.1 lladdr 02:00:00:00:00:02 dev wire");
    for fanout in [None, Some(78)] {
        let mut near =
            TestPort::packet_socket(&here, "wire", AfPacketOptions { fanout, ..AfPacketOptions::default() });
        let mut far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
        here.within(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"from the host", "198.51.100.1:9")).unwrap();
        let from_host = |frame: &[u8]| frame.ends_with(b"from the host");
        far.receive_until(from_host);
        far.send(&numbered(0..1, 60));
        let came = near.receive_until(is_ours);
        assert!(!came.iter().any(|frame| from_host(frame)), "{fanout:?}");
    }
}

#[test]
fn a_fanout_group_shares_frames_by_flow() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let shared = AfPacketOptions { fanout: Some(77), ..AfPacketOptions::default() };
    let mut ports = [
        TestPort::packet_socket(&here, "wire", shared.clone()),
        TestPort::packet_socket(&here, "wire", shared),
    ];
    let mut sender = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let frames: Vec<Vec<u8>> = (0..1024).map(|n| datagram(1000 + n as u16 % 64, n, 60)).collect();
    for frames in frames.chunks(64) {
        sender.send(frames);
    }
    let mut got: [Vec<u32>; 2] = [vec![], vec![]];
    wait_until("all have come", || {
        for (near, got) in ports.iter_mut().zip(&mut got) {
            got.extend(numbers(&near.receive()));
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
