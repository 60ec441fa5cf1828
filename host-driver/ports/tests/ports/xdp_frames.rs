//! Frames through XDP sockets, on a veth whose other end is a packet socket.

use std::net::{Ipv4Addr, UdpSocket};

use culvert_packet::checksum::Checksum;
use culvert_packet::{Gso, Offload, Protocol, craft, tcp};
use culvert_ports::{AfPacketOptions, AfXdp, AfXdpOptions, AfXdpParts, Tap};
use culvert_switch::SwitchPort;

use crate::frames::{datagram, ends, is_ours, number, numbered, numbers};
use crate::namespace::{Namespace, can_use_taps, can_use_xdp, wait_until};
use crate::receive_checks;
use crate::test_port::TestPort;

fn ours(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.retain(|frame| is_ours(frame));
    frames
}

/// Frames of all lengths up to the MTU, with and without a tag, pass both ways unchanged.
fn both_ways(mtu: usize) {
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    here.run(&format!("ip link set wire mtu {mtu}"));
    there.run(&format!("ip link set far mtu {mtu}"));
    let mut near = TestPort::xdp(&here, "wire", AfXdpOptions { slots: 128, ..AfXdpOptions::default() });
    let mut far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let lengths = [4, 60, 700, 1400, 1472, 1760, 1800, 3000, 3800, 4078, 5000, 8191, 8972];
    let mut frames = Vec::new();
    for len in lengths.into_iter().filter(|len| len + 28 <= mtu) {
        for tag in [&[][..], &[0x81, 0, 0xe0, 7], &[0x88, 0xa8, 0x0f, 0xff]] {
            // A sending packet socket does not know that 0x88a8 is a tag, too.
            let len = if tag.first() == Some(&0x88) { len.min(mtu - 28 - 4) } else { len };
            let mut frame = datagram(9, frames.len() as u32, len);
            frame.splice(12..12, tag.iter().copied());
            frames.push(frame);
        }
    }
    let last = frames.last().unwrap().clone();
    // More frames than slots, so that each slot is used several times.
    for round in 0..100 {
        for frames in frames.chunks(7) {
            assert_eq!(far.send(frames).packets, frames.len() as u64);
        }
        assert_eq!(ours(near.receive_until(|frame| frame == last)), frames, "in, round {round}");
        for frames in frames.chunks(7) {
            let sent = near.send(frames);
            let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
            assert_eq!((sent.packets, sent.bytes), (frames.len() as u64, bytes), "{sent:?}");
        }
        assert_eq!(ours(far.receive_until(|frame| frame == last)), frames, "out, round {round}");
    }
    assert_eq!(near.take_rx_drops(), 0);
    let too_long = datagram(9, 0, mtu - 27);
    assert_eq!(near.send(std::slice::from_ref(&too_long)).refused, 1, "longer than the MTU");
}

#[test]
fn frames_pass_both_ways_in_order() {
    if can_use_xdp() {
        both_ways(1500);
    }
}

#[test]
fn frames_that_need_a_page_or_more_pass_both_ways() {
    if can_use_xdp() {
        both_ways(3500);
        both_ways(9000);
    }
}

#[test]
fn frames_without_a_slot_are_counted_and_the_rest_stays_in_order() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let mut near = TestPort::xdp(&here, "wire", AfXdpOptions { slots: 32, ..AfXdpOptions::default() });
    let mut far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    assert_eq!(far.send(&numbered(0..200, 60)).packets, 200);
    let (mut got, mut lost, mut all) = (0, 0, Vec::new());
    // The kernel's own frames, of IPv6, may be among the received and the lost ones.
    wait_until("all are accounted for", || {
        let some = near.receive();
        got += some.len() as u64;
        all.extend(numbers(&some));
        lost += near.take_rx_drops();
        got + lost >= 200
    });
    assert!(got >= 32 && lost >= 100 && all.is_sorted(), "{got} came, {lost} were lost");
    far.send(&numbered(500..501, 60));
    near.receive_until(|frame| is_ours(frame) && number(frame) == 500);
    assert_eq!(near.take_rx_drops(), 0, "each is counted once");
}

#[test]
fn a_full_interface_is_reported_to_the_sender() {
    if !can_use_xdp() || !can_use_taps() {
        return;
    }
    let here = Namespace::new();
    let mut vm = TestPort::new(here.within(|| Tap::open("vm", 1500, None).unwrap()));
    let mut near = TestPort::xdp(&here, "vm", AfXdpOptions::default());
    vm.receive();
    // The kernel keeps 1000 frames for a TAP with a slow reader (its transmit queue length).
    let sent = near.send(&numbered(0..2000, 60));
    assert_eq!((sent.packets + sent.full, sent.down, sent.refused), (2000, 0, 0));
    assert!(sent.full >= 900, "{sent:?}");
    let mut got = Vec::new();
    wait_until("what was taken has come", || {
        got.extend(numbers(&vm.receive()));
        got.len() as u64 >= sent.packets
    });
    assert_eq!(got, (0..sent.packets as u32).collect::<Vec<u32>>());
    let sent = near.send(&numbered(0..100, 60));
    assert_eq!((sent.packets, sent.full), (100, 0), "there is room again");
}

#[test]
fn frames_wait_for_a_buffer() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    here.run("ip link set wire mtu 9000");
    there.run("ip link set far mtu 9000");
    let near = TestPort::xdp(&here, "wire", AfXdpOptions::default());
    let far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    receive_checks::frames_wait_for_a_buffer(near, far, || {});
}

#[test]
fn a_frame_wakes_a_sleeping_reader() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let near = TestPort::xdp(&here, "wire", AfXdpOptions::default());
    let far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    receive_checks::a_frame_wakes_a_sleeping_reader(near, far);
}

#[test]
fn frames_of_all_receive_queues_are_received() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect_with_queues("wire", &there, "far", 2);
    let mut near = TestPort::xdp(&here, "wire", AfXdpOptions::default());
    assert_eq!(near.port.queues(), 2);
    there.run("ip addr add 198.51.100.2/24 dev far");
    there.run("ip neigh add 198.51.100.1 lladdr 02:00:00:00:00:02 dev far");
    // The kernel spreads flows over its queues.
    there.within(|| {
        for flow in 0..64u32 {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for n in 0..4 {
                socket.send_to(&(flow * 4 + n).to_be_bytes(), "198.51.100.1:9").unwrap();
            }
        }
    });
    let mut got = Vec::new();
    wait_until("all have come", || {
        let frames = near.receive();
        got.extend(frames.iter().filter(|frame| frame[36..38] == [0, 9]).map(|frame| number(frame)));
        got.len() == 256
    });
    for flow in 0..64 {
        let of_flow: Vec<u32> = got.iter().copied().filter(|n| n / 4 == flow).collect();
        assert_eq!(of_flow, (flow * 4..flow * 4 + 4).collect::<Vec<u32>>(), "in order");
    }
    assert_eq!(near.take_rx_drops(), 0);
}

#[test]
fn workers_share_the_receive_queues_and_each_sends() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect_with_queues("wire", &there, "far", 3);
    let parts = AfXdpParts::new(2);
    let part = |n| {
        let parts = parts.clone();
        here.within(move || AfXdp::open_part("wire", &AfXdpOptions::default(), &parts, n).unwrap())
    };
    let mut ports = [0, 1].map(|n| TestPort::new(part(n)));
    assert_eq!(ports.each_ref().map(|near| near.port.queues()), [2, 1]);
    there.run("ip addr add 198.51.100.2/24 dev far");
    there.run("ip neigh add 198.51.100.1 lladdr 02:00:00:00:00:02 dev far");
    let send = |flows: std::ops::Range<u32>| {
        there.within(move || {
            for flow in flows {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                for n in 0..4 {
                    socket.send_to(&(flow * 4 + n).to_be_bytes(), "198.51.100.1:9").unwrap();
                }
            }
        });
    };
    let numbers = |near: &mut TestPort<AfXdp>| {
        let frames = near.receive();
        let ours = frames.iter().filter(|frame| frame[36..38] == [0, 9]);
        ours.map(|frame| number(frame)).collect::<Vec<u32>>()
    };
    send(0..64);
    let mut got = [Vec::new(), Vec::new()];
    wait_until("all have come", || {
        got.iter_mut().zip(&mut ports).for_each(|(got, near)| got.extend(numbers(near)));
        got.iter().map(Vec::len).sum::<usize>() == 256
    });
    // Each flow is one's, in order, and both have some.
    for flow in 0..64 {
        let of_flow =
            got.each_ref().map(|got| got.iter().copied().filter(|n| n / 4 == flow).collect::<Vec<u32>>());
        let all: Vec<u32> = (flow * 4..flow * 4 + 4).collect();
        assert!(of_flow == [all.clone(), Vec::new()] || of_flow == [Vec::new(), all], "{of_flow:?}");
    }
    assert!(got.iter().all(|got| !got.is_empty()));
    let mut far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    for (n, near) in (0..).zip(&mut ports) {
        assert_eq!(near.send(&[datagram(9, n, 60)]).packets, 1);
        far.receive_until(|frame| is_ours(frame) && number(frame) == n);
    }
    // A port that is reopened uses the program that the other one has kept.
    let [first, mut second] = ports;
    drop(first);
    let mut first = TestPort::new(part(0));
    send(64..128);
    let mut got = Vec::new();
    wait_until("all have come again", || {
        got.extend(numbers(&mut first));
        got.extend(numbers(&mut second));
        got.len() == 256
    });
}

#[test]
fn a_worker_without_a_queue_is_refused() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    assert_eq!(here.within(|| AfXdp::receive_queues("wire").unwrap()), 1);
    let open = || AfXdp::open_part("wire", &AfXdpOptions::default(), &AfXdpParts::new(2), 1).err().unwrap();
    let error = here.within(open).to_string();
    assert!(error.contains("wire has 1 receive queues"), "{error}");
}

#[test]
fn large_frames_are_segmented_by_a_veth_and_otherwise_counted() {
    if !can_use_xdp() || !can_use_taps() {
        return;
    }
    for generic in [false, true] {
        let (here, there) = (Namespace::new(), Namespace::new());
        if generic {
            // The other end of the veth does not know of a program on a macvlan.
            here.connect_macvlan("wire", &there, "far");
        } else {
            here.connect("wire", &there, "far");
        }
        let mut near = TestPort::xdp(&here, "wire", AfXdpOptions::default());
        // What a VM there sends passes the veth with its offloads.
        let mut vm = TestPort::new(there.within(|| Tap::open("vm", 1500, None).unwrap()));
        there.redirect("vm", "far");
        let header = tcp::Header { src_port: 1, dst_port: 2, ..tcp::Header::default() };
        let payload: Vec<u8> = (0..4000u32).map(|n| n as u8).collect();
        let mut frame = vec![0; 5000];
        let ends = ends(Ipv4Addr::new(198, 51, 100, 1));
        let len = craft::tcp(&mut frame, &ends, &header, &payload).unwrap();
        let mut packet = vm.pool.take_large().unwrap();
        assert!(packet.fill(&frame[..len]));
        packet.offload = Offload { gso: Gso::TcpV4, mss: 1000, ..Offload::default() };
        assert_eq!(vm.port.send(&mut vm.pool, &mut vec![packet]).unwrap().packets, 1);
        if generic {
            wait_until("it is counted", || near.take_rx_drops() > 0);
            continue;
        }
        let mut got = Vec::new();
        wait_until("all of it has come", || {
            got.extend(ours(near.receive()));
            got.len() == 4
        });
        for (frame, part) in got.iter().zip(payload.chunks(1000)) {
            assert_eq!(frame[54..], *part);
            let mut sum = Checksum::new();
            sum.pseudo(&frame[26..30], &frame[30..34], Protocol::TCP, 1020);
            assert_eq!(sum.bytes(&frame[34..]).sum(), 0xffff, "its checksum is complete");
        }
        assert_eq!(near.take_rx_drops(), 0);
    }
}
