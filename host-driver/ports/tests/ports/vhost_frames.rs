//! Frames through the vrings of a guest: order, large frames, checksums, flows, kicks and interrupts.

use std::collections::HashMap;
use std::time::Duration;

use culvert_flow::Checksum::{Good, Unknown};
use culvert_packet::checksum::Checksum;
use culvert_packet::{ChecksumState, Gso, Offload, Protocol, craft, tcp};
use culvert_switch::{Pool, Sent, SwitchPort};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

use crate::frames::{datagram, ends, number, numbered, numbers};
use crate::namespace::{TIMEOUT, wait_until};
use crate::vhost_guest::{
    CSUM, EVENT_IDX, GUEST_CSUM, GUEST_TSO, HEADER, HOST_TSO, INDIRECT, MERGEABLE, NEXT, SIZE, TABLE, USO,
    descriptor,
};
use crate::vhost_vm::Vm;

#[test]
fn frames_pass_in_order_both_ways_many_times_around_the_rings() {
    for features in [0, MERGEABLE, EVENT_IDX, MERGEABLE | EVENT_IDX] {
        let mut vm = Vm::new(1, features);
        let (mut sent, mut out, mut back) = (0, Vec::new(), Vec::new());
        for burst in (1..250).step_by(7) {
            let frames = numbered(sent..sent + burst, 60 + burst as usize * 5);
            sent += burst;
            frames.iter().for_each(|frame| vm.guest.send(frame));
            out.extend(numbers(&vm.host.receive()));
            assert_eq!(vm.host.send(&frames).packets, u64::from(burst));
            let came = vm.guest.receive(0);
            assert_eq!(came.iter().map(|(_, frame)| frame.clone()).collect::<Vec<_>>(), frames);
            back.extend(numbers(came.iter().map(|(_, frame)| frame)));
        }
        let all: Vec<u32> = (0..sent).collect();
        assert!(sent > 4096 && out == all && back == all);
        assert_eq!((vm.host.port.take_rx_drops(), vm.host.pool.free()), (0, 4096 + 32));
    }
}

#[test]
fn frames_without_a_guest_buffer_are_counted_and_without_a_pool_buffer_wait() {
    let mut vm = Vm::new(1, 0);
    assert_eq!(vm.host.send(&numbered(0..300, 60)).full, 44);
    assert_eq!(numbers(vm.guest.receive(0).iter().map(|(_, frame)| frame)), (0..256).collect::<Vec<u32>>());
    vm.host.pool = Pool::new(8, 0).unwrap();
    numbered(0..100, 60).iter().for_each(|frame| vm.guest.send(frame));
    let mut all = Vec::new();
    while all.len() < 100 {
        assert!(!vm.host.port.arm(), "more are there");
        let some = numbers(&vm.host.receive());
        assert!(some.len() <= 8 && !some.is_empty());
        all.extend(some);
    }
    assert_eq!((all, vm.host.port.take_rx_drops()), ((0..100).collect(), 0));
    // Without a guest there is no link.
    drop(vm.frontend);
    wait_until("the connection ends", || !vm.host.port.link());
    let sent = vm.host.send(&numbered(0..3, 60));
    assert_eq!((sent.down, sent.packets), (3, 0));
}

#[test]
fn frames_may_have_several_and_indirect_descriptors() {
    let mut vm = Vm::new(1, INDIRECT);
    for (n, piece) in [1, 5, 11, 12, 13, 100].into_iter().enumerate() {
        let frame = datagram(9, n as u32, 133);
        assert!(vm.guest.send_in(1, [0; HEADER], &frame, piece));
        assert_eq!(vm.host.receive(), [frame]);
    }
    let frame = datagram(9, 7, 1000);
    let whole = [&[0; HEADER][..], &frame].concat();
    // The table and the frame lie in buffers of other descriptors.
    let (table, first, rest) = (vm.guest.buffer(1, 100), vm.guest.buffer(1, 101), vm.guest.buffer(1, 102));
    let entries = [descriptor(first, 500, NEXT, 2), descriptor(0, 0, 0, 0), descriptor(rest, 554, 0, 0)];
    vm.guest.buffer_area.write(vm.guest.buffer_at(1, 100), &entries.concat());
    vm.guest.buffer_area.write(vm.guest.buffer_at(1, 101), &whole[..500]);
    vm.guest.buffer_area.write(vm.guest.buffer_at(1, 102), &whole[500..]);
    assert_eq!(whole.len(), 1054);
    vm.guest.describe(1, 50, table, 48, TABLE, 0);
    vm.guest.make_available(1, &[50]);
    assert_eq!(vm.host.receive(), [frame]);
}

/// A datagram with the sum of its pseudo-header where its checksum will be.
fn partial(right: &[u8]) -> Vec<u8> {
    let mut frame = right.to_vec();
    let len = (frame.len() - 34) as u32;
    let sum = Checksum::new().pseudo(&right[26..30], &right[30..34], Protocol::UDP, len).sum();
    frame[40..42].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn a_guests_partial_checksum_is_completed_and_its_verified_flag_ignored() {
    let mut vm = Vm::new(1, CSUM);
    let right = datagram(9, 1, 333);
    let mut header = [0; HEADER];
    (header[0], header[6], header[8]) = (1, 34, 6);
    assert!(vm.guest.send_in(1, header, &partial(&right), 2048));
    let verified = Offload { checksum: ChecksumState::Verified, ..Offload::default() };
    assert_eq!(vm.only(), (right.clone(), verified, Good));
    // DATA_VALID.
    header[0] = 2;
    assert!(vm.guest.send_in(1, header, &right, 2048));
    assert_eq!(vm.only(), (right, Offload::default(), Unknown));
}

#[test]
fn a_guests_header_has_checksum_flags_only_if_negotiated() {
    let right = datagram(9, 1, 333);
    let open = Offload { checksum: ChecksumState::Partial, start: 34, offset: 6, ..Offload::default() };
    let verified = Offload { checksum: ChecksumState::Verified, ..Offload::default() };
    let count = [1, 0];
    for features in [0, GUEST_CSUM] {
        let told = features != 0;
        let mut vm = Vm::new(1, features);
        vm.send_with(&right, verified);
        vm.send_with(&right, Offload::default());
        vm.send_with(&partial(&right), open);
        let header = |flags: u8, start: u8, offset: u8| {
            let flags = if told { [flags, 0, 0, 0, 0, 0, start, 0, offset, 0] } else { [0; 10] };
            <[u8; HEADER]>::try_from([&flags[..], &count].concat()).unwrap()
        };
        let last = if told { partial(&right) } else { right.clone() };
        let expected =
            [(header(2, 0, 0), right.clone()), (header(0, 0, 0), right.clone()), (header(1, 34, 6), last)];
        assert_eq!(vm.guest.receive(0), expected);
    }
}

fn segment(len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| (n / 1000) as u8).collect();
    let header = tcp::Header {
        src_port: 1,
        dst_port: 2,
        sequence: 7,
        acknowledgment: 9,
        flags: tcp::Flags::ACK,
        window: 1000,
        urgent: 0,
    };
    let mut frame = vec![0; len + 100];
    let to = std::net::Ipv4Addr::new(198, 51, 100, 1);
    let len = craft::tcp(&mut frame, &ends(to), &header, &payload).unwrap();
    frame.truncate(len);
    frame
}

#[test]
fn frames_of_64_kib_arrive_whole_in_several_buffers() {
    let mut vm = Vm::new(1, MERGEABLE | GUEST_CSUM | GUEST_TSO);
    let large = segment(64_000);
    let cut = Offload { gso: Gso::TcpV4, mss: 1400, ..Offload::default() };
    for _ in 0..20 {
        assert_eq!(vm.send_with(&large, cut).packets, 1);
        let came = vm.guest.receive(0);
        let (header, frame) = &came[0];
        assert_eq!((came.len(), frame.len()), (1, large.len()));
        // NEEDS_CSUM, TCPV4, 54 bytes of headers, segments of 1400, checksum at 34 + 16, 32 buffers.
        assert_eq!(*header, [1, 1, 54, 0, 120, 5, 34, 0, 16, 0, 32, 0]);
        assert_eq!((&frame[..50], &frame[52..]), (&large[..50], &large[52..]), "all but the checksum");
    }
    // Eight fit into the ring, and what does not is dropped whole.
    let sent: Vec<Sent> = (0..9).map(|_| vm.send_with(&large, cut)).collect();
    assert_eq!(sent.iter().map(|sent| (sent.packets, sent.full)).collect::<Vec<_>>()[7..], [(1, 0), (0, 1)]);
    assert_eq!(vm.guest.receive(0).len(), 8);
}

#[test]
fn a_guest_that_takes_no_large_frames_gets_segments() {
    for features in [0, GUEST_CSUM | MERGEABLE, GUEST_TSO | MERGEABLE] {
        let mut vm = Vm::new(1, features);
        let large = segment(10_000);
        let cut = Offload { gso: Gso::TcpV4, mss: 1400, ..Offload::default() };
        assert_eq!(vm.send_with(&large, cut).packets, 8);
        let came = vm.guest.receive(0);
        let payload: Vec<u8> = came.iter().flat_map(|(_, frame)| frame[54..].to_vec()).collect();
        assert_eq!((came.len(), &payload[..]), (8, &large[54..]));
        for (_, frame) in &came {
            let len = (frame.len() - 34) as u32;
            let mut sum = Checksum::new();
            sum.pseudo(&frame[26..30], &frame[30..34], Protocol::TCP, len).bytes(&frame[34..]);
            assert_eq!(sum.finish(), 0, "a right checksum");
        }
    }
}

#[test]
fn a_guests_large_frames_are_received_whole() {
    let mut vm = Vm::new(1, CSUM | HOST_TSO | USO);
    let large = segment(64_000);
    let mut header = [0; HEADER];
    header[..10].copy_from_slice(&[1, 1, 54, 0, 120, 5, 34, 0, 16, 0]);
    for _ in 0..300 {
        assert!(vm.guest.send_in(1, header, &large, 2048));
        let (frame, offload, _) = vm.only();
        assert_eq!((frame.len(), offload.gso, offload.mss), (large.len(), Gso::TcpV4, 1400));
        assert!(frame == large);
    }
}

#[test]
fn a_flow_stays_on_one_ring_and_all_rings_are_used() {
    let mut vm = Vm::new(4, 0);
    let frames: Vec<Vec<u8>> = (0..512).map(|n| datagram(1000 + n as u16 % 64, n, 60)).collect();
    let mut owner = HashMap::new();
    for frames in frames.chunks(64) {
        assert_eq!(vm.host.send(frames).packets, 64);
        for ring in [0, 2, 4, 6] {
            let came = vm.guest.receive(ring);
            assert!(!came.is_empty(), "of 64 flows none to one of four");
            for (_, frame) in came {
                assert_eq!(*owner.entry(number(&frame) % 64).or_insert(ring), ring);
            }
        }
    }
    assert_eq!(owner.len(), 64);
    // From all rings frames come, each ring's in their order.
    for n in 0..400 {
        assert!(vm.guest.send_in(1 + 2 * (n as usize % 4), [0; HEADER], &datagram(9, n, 60), 2048));
    }
    let mut last = [0; 4];
    let came = numbers(&vm.host.receive());
    assert_eq!(came.len(), 400);
    for n in came {
        assert!(n == n % 4 || n > last[n as usize % 4]);
        last[n as usize % 4] = n;
    }
    // A driver that uses fewer pairs gets all on those.
    vm.serve(|_, frontend| {
        for n in 2..8 {
            frontend.set_vring_enable(n, false).unwrap();
        }
    });
    assert_eq!(vm.host.send(&frames[..64]).packets, 64);
    assert_eq!(vm.guest.receive(0).len(), 64);
}

#[test]
fn a_kick_wakes_a_sleeping_reader_and_an_awake_one_gets_no_kicks() {
    for features in [0, EVENT_IDX] {
        let mut vm = Vm::new(2, features);
        vm.guest.send(&datagram(9, 0, 60));
        vm.host.receive();
        let before = vm.guest.kicks;
        for n in 0..100 {
            vm.guest.send(&datagram(9, n, 60));
            assert_eq!(vm.host.receive().len(), 1);
        }
        assert_eq!(vm.guest.kicks, before, "it was awake");
        for n in 0..100 {
            wait_until("nothing is there", || {
                vm.host.receive();
                vm.host.port.arm() && !vm.host.readable(Duration::ZERO)
            });
            assert!(vm.guest.send_in(1 + 2 * (n as usize % 2), [0; HEADER], &datagram(9, n, 60), 2048));
            assert!(vm.host.readable(TIMEOUT) && !vm.host.port.arm(), "frame {n}");
            assert_eq!(numbers(&vm.host.receive()), [n]);
        }
        assert_eq!(vm.guest.kicks, before + 100);
        // An event index cannot be withdrawn: a ring that did not kick before may kick once.
        let mut before = 0;
        for n in 0..10 {
            vm.guest.send(&datagram(9, n, 60));
            assert_eq!(vm.host.receive().len(), 1);
            before = if n == 0 { vm.guest.kicks } else { before };
        }
        assert_eq!(vm.guest.kicks, before, "it is awake again");
    }
}

#[test]
fn a_guest_is_interrupted_as_it_has_asked() {
    let mut vm = Vm::new(1, 0);
    vm.guest.interrupted(0);
    for on in [true, false, true] {
        vm.guest.set_interrupts(0, on);
        vm.guest.set_interrupts(1, on);
        vm.host.send(&numbered(0..3, 60));
        vm.guest.send(&datagram(9, 0, 60));
        vm.host.receive();
        assert_eq!([0, 1].map(|ring| vm.guest.interrupted(ring)), [on; 2]);
    }
    let mut vm = Vm::new(1, EVENT_IDX);
    vm.guest.interrupt_after(0, 5);
    vm.host.send(&numbered(0..4, 60));
    vm.guest.interrupted(0);
    vm.guest.interrupt_after(0, 5);
    vm.host.send(&numbered(0..4, 60));
    assert!(!vm.guest.interrupted(0));
    vm.host.send(&numbered(0..4, 60));
    assert!(vm.guest.interrupted(0));
    vm.host.send(&numbered(0..4, 60));
    assert!(!vm.guest.interrupted(0), "once");
    assert_eq!(vm.guest.receive(0).len(), 16);
    assert_eq!(vm.serve(|_, frontend| frontend.get_vring_base(0).unwrap()), 16);
    assert_eq!(u32::from(SIZE), 256);
}
