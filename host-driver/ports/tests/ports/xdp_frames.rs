//! Frames through XDP sockets, on a veth whose other end is a packet socket.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use culvert_packet::checksum::Checksum;
use culvert_packet::{Gso, Offload, Protocol, craft, tcp};
use culvert_ports::{AfPacketOptions, AfXdp, AfXdpOptions, AfXdpParts, Tap};
use culvert_switch::{Pool, SwitchPort};

use crate::lan_host::{FdbEntry, datagram, ends, is_ours, number};
use crate::namespace::{LIMIT, Namespace, may_begin_with_taps, may_begin_with_xdp, until};

fn numbered(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|n| datagram(9, n, 60)).collect()
}

fn ours(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.retain(|frame| is_ours(frame));
    frames
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    frames.iter().filter(|frame| is_ours(frame)).map(|frame| number(frame)).collect()
}

/// Frames of all lengths that the MTU has, with and without a tag, come as they were sent, both ways.
fn both_ways(mtu: usize) {
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    here.run(&format!("ip link set wire mtu {mtu}"));
    there.run(&format!("ip link set far mtu {mtu}"));
    let mut station = FdbEntry::before(&here, "wire", AfXdpOptions { slots: 128, ..AfXdpOptions::default() });
    let mut far = FdbEntry::on(&there, "far", AfPacketOptions::default());
    let lengths = [4, 60, 700, 1400, 1472, 1760, 1800, 3000, 3800, 4078, 5000, 8191, 8972];
    let mut frames = Vec::new();
    for len in lengths.into_iter().filter(|len| len + 28 <= mtu) {
        for tag in [&[][..], &[0x81, 0, 0xe0, 7], &[0x88, 0xa8, 0x0f, 0xff]] {
            // A packet socket of the peer's does not know that the second one is a tag, too.
            let len = if tag.first() == Some(&0x88) { len.min(mtu - 28 - 4) } else { len };
            let mut frame = datagram(9, frames.len() as u32, len);
            frame.splice(12..12, tag.iter().copied());
            frames.push(frame);
        }
    }
    let last = frames.last().unwrap().clone();
    // More often than there are slots, so that all of them are used again.
    for round in 0..100 {
        for frames in frames.chunks(7) {
            assert_eq!(far.send(frames).packets, frames.len() as u64);
        }
        assert_eq!(ours(station.receive_until(|frame| frame == last)), frames, "in, round {round}");
        for frames in frames.chunks(7) {
            let sent = station.send(frames);
            let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
            assert_eq!((sent.packets, sent.bytes), (frames.len() as u64, bytes), "{sent:?}");
        }
        assert_eq!(ours(far.receive_until(|frame| frame == last)), frames, "out, round {round}");
    }
    assert_eq!(station.port.take_rx_drops(), 0);
    let too_long = datagram(9, 0, mtu - 27);
    assert_eq!(station.send(std::slice::from_ref(&too_long)).refused, 1, "longer than the MTU");
}

#[test]
fn frames_pass_both_ways_in_order() {
    if may_begin_with_xdp() {
        both_ways(1500);
    }
}

#[test]
fn frames_that_need_a_page_or_more_pass_both_ways() {
    if may_begin_with_xdp() {
        both_ways(3500);
        both_ways(9000);
    }
}

#[test]
fn what_finds_no_slot_is_counted_and_what_came_stays_in_order() {
    if !may_begin_with_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    let mut station = FdbEntry::before(&here, "wire", AfXdpOptions { slots: 32, ..AfXdpOptions::default() });
    let mut far = FdbEntry::on(&there, "far", AfPacketOptions::default());
    assert_eq!(far.send(&numbered(0..200)).packets, 200);
    let (mut got, mut lost, mut all) = (0, 0, Vec::new());
    // The kernel's own frames, of IPv6, may be among those that came and those that were lost.
    until("all are accounted for", || {
        let some = station.receive();
        got += some.len() as u64;
        all.extend(numbers(&some));
        lost += station.port.take_rx_drops();
        got + lost >= 200
    });
    assert!(got >= 32 && lost >= 100 && all.is_sorted(), "{got} came, {lost} were lost");
    far.send(&numbered(500..501));
    station.receive_until(|frame| is_ours(frame) && number(frame) == 500);
    assert_eq!(station.port.take_rx_drops(), 0, "each is told once");
}

#[test]
fn a_full_interface_is_told_to_who_sends() {
    if !may_begin_with_xdp() || !may_begin_with_taps() {
        return;
    }
    let here = Namespace::new();
    let mut vm = FdbEntry::of(here.within(|| Tap::open("vm", 1500, None).unwrap()));
    let mut station = FdbEntry::before(&here, "vm", AfXdpOptions::default());
    vm.receive();
    // The kernel keeps 1000 frames for a TAP whose reader is slow (its transmit queue length).
    let sent = station.send(&numbered(0..2000));
    assert_eq!((sent.packets + sent.full, sent.down, sent.refused), (2000, 0, 0));
    assert!(sent.full >= 900, "{sent:?}");
    let mut got = Vec::new();
    until("what was taken has come", || {
        got.extend(numbers(&vm.receive()));
        got.len() as u64 >= sent.packets
    });
    assert_eq!(got, (0..sent.packets as u32).collect::<Vec<u32>>());
    let sent = station.send(&numbered(0..100));
    assert_eq!((sent.packets, sent.full), (100, 0), "there is room again");
}

#[test]
fn frames_wait_for_a_buffer() {
    if !may_begin_with_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    here.run("ip link set wire mtu 9000");
    there.run("ip link set far mtu 9000");
    let mut station = FdbEntry::before(&here, "wire", AfXdpOptions::default());
    station.pool = Pool::new(8, 0).unwrap();
    let mut far = FdbEntry::on(&there, "far", AfPacketOptions::default());
    far.send(&numbered(0..20));
    let mut all = Vec::new();
    until("all have come", || {
        let some = station.receive();
        assert!(some.len() <= 8);
        all.extend(numbers(&some));
        all.len() == 20
    });
    assert_eq!((all, station.port.take_rx_drops()), ((0..20).collect(), 0));
    // A frame that no buffer of this pool will ever hold is not waited for.
    far.send(&[datagram(9, 20, 5000), datagram(9, 21, 60)]);
    let rest = station.receive_until(|frame| is_ours(frame) && number(frame) == 21);
    assert_eq!((numbers(&rest), station.port.take_rx_drops()), (vec![21], 1));
}

#[test]
fn a_sleeper_is_woken_by_a_frame() {
    if !may_begin_with_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    let mut station = FdbEntry::before(&here, "wire", AfXdpOptions::default());
    let mut far = FdbEntry::on(&there, "far", AfPacketOptions::default());
    for n in 0..100 {
        until("nothing is there", || {
            station.receive();
            station.port.arm() && !station.readable(Duration::ZERO)
        });
        far.send(&numbered(n..n + 1));
        assert!(station.readable(LIMIT) && !station.port.arm(), "frame {n}");
        station.receive_until(|frame| is_ours(frame) && number(frame) == n);
    }
}

#[test]
fn frames_of_all_receive_queues_come() {
    if !may_begin_with_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join_by_queues("wire", &there, "far", 2);
    let mut station = FdbEntry::before(&here, "wire", AfXdpOptions::default());
    assert_eq!(station.port.queues(), 2);
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
    until("all have come", || {
        let frames = station.receive();
        got.extend(frames.iter().filter(|frame| frame[36..38] == [0, 9]).map(|frame| number(frame)));
        got.len() == 256
    });
    for flow in 0..64 {
        let of_flow: Vec<u32> = got.iter().copied().filter(|n| n / 4 == flow).collect();
        assert_eq!(of_flow, (flow * 4..flow * 4 + 4).collect::<Vec<u32>>(), "in order");
    }
    assert_eq!(station.port.take_rx_drops(), 0);
}

#[test]
fn workers_share_the_receive_queues_and_each_sends() {
    if !may_begin_with_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join_by_queues("wire", &there, "far", 3);
    let parts = AfXdpParts::new(2);
    let part = |n| {
        let parts = parts.clone();
        here.within(move || AfXdp::open_part("wire", &AfXdpOptions::default(), &parts, n).unwrap())
    };
    let mut fdb = [0, 1].map(|n| FdbEntry::of(part(n)));
    assert_eq!(fdb.each_ref().map(|station| station.port.queues()), [2, 1]);
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
    let numbers = |station: &mut FdbEntry<AfXdp>| {
        let frames = station.receive();
        let ours = frames.iter().filter(|frame| frame[36..38] == [0, 9]);
        ours.map(|frame| number(frame)).collect::<Vec<u32>>()
    };
    send(0..64);
    let mut got = [Vec::new(), Vec::new()];
    until("all have come", || {
        got.iter_mut().zip(&mut fdb).for_each(|(got, station)| got.extend(numbers(station)));
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
    let mut far = FdbEntry::on(&there, "far", AfPacketOptions::default());
    for (n, station) in (0..).zip(&mut fdb) {
        assert_eq!(station.send(&[datagram(9, n, 60)]).packets, 1);
        far.receive_until(|frame| is_ours(frame) && number(frame) == n);
    }
    // One that goes and comes back finds the program that the other has kept.
    let [first, mut second] = fdb;
    drop(first);
    let mut first = FdbEntry::of(part(0));
    send(64..128);
    let mut got = Vec::new();
    until("all have come again", || {
        got.extend(numbers(&mut first));
        got.extend(numbers(&mut second));
        got.len() == 256
    });
}

#[test]
fn there_is_nothing_for_a_worker_without_a_queue() {
    if !may_begin_with_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    assert_eq!(here.within(|| AfXdp::receive_queues("wire").unwrap()), 1);
    let open = || AfXdp::open_part("wire", &AfXdpOptions::default(), &AfXdpParts::new(2), 1).err().unwrap();
    let error = here.within(open).to_string();
    assert!(error.contains("wire has 1 receive queues"), "{error}");
}

#[test]
fn large_frames_are_cut_by_a_peer_that_knows_of_the_program_and_else_counted() {
    if !may_begin_with_xdp() || !may_begin_with_taps() {
        return;
    }
    for generic in [false, true] {
        let (here, there) = (Namespace::new(), Namespace::new());
        if generic {
            // The peer of the veth does not know of a program on what stands on this end of it.
            here.join("port", &there, "far");
            here.run("ip link add link port name wire type macvlan mode passthru");
            here.run("ip link set wire up");
        } else {
            here.join("wire", &there, "far");
        }
        let mut station = FdbEntry::before(&here, "wire", AfXdpOptions::default());
        // What a VM over there sends goes out on the wire with all that its kernel knows of it.
        let mut vm = FdbEntry::of(there.within(|| Tap::open("vm", 1500, None).unwrap()));
        there.run("tc qdisc add dev vm clsact");
        let all = "tc filter add dev vm ingress protocol all u32 match u32 0 0";
        there.run(&format!("{all} action mirred egress redirect dev far"));
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
            until("it is counted", || station.port.take_rx_drops() > 0);
            continue;
        }
        let mut got = Vec::new();
        until("all of it has come", || {
            got.extend(ours(station.receive()));
            got.len() == 4
        });
        for (frame, part) in got.iter().zip(payload.chunks(1000)) {
            assert_eq!(frame[54..], *part);
            let mut sum = Checksum::new();
            sum.pseudo(&frame[26..30], &frame[30..34], Protocol::TCP, 1020);
            assert_eq!(sum.bytes(&frame[34..]).sum(), 0xffff, "its checksum is complete");
        }
        assert_eq!(station.port.take_rx_drops(), 0);
    }
}
