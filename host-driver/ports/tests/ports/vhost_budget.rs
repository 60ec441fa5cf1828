//! Guests whose frames cost much: one call on their port takes a limited time, and their frames arrive all the same.

use culvert_switch::{BURST, SwitchPort as _};

use crate::frames::{datagram, numbered};
use crate::vhost_guest::{HEADER, INDIRECT, MERGEABLE, NEXT, TABLE, WRITE, descriptor};
use crate::vhost_vm::Vm;

/// Frames that one call gives, given back to the pool.
fn receive(vm: &mut Vm) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    vm.host.port.receive(&mut vm.host.pool, &mut packets, BURST).unwrap();
    let frames = packets.iter().map(|packet| packet.bytes().to_vec()).collect();
    packets.into_iter().for_each(|packet| vm.host.pool.give(packet));
    frames
}

/// Writes a table of descriptors of `piece` bytes each, one behind the other from `buffer` on, and returns its length.
fn table(vm: &Vm, ring: usize, at: u16, buffer: u16, (count, piece): (u16, u16), flags: u16) -> u32 {
    let first = vm.guest.buffer(ring, buffer);
    let entry = |n: u16| {
        let next = if n + 1 < count { NEXT } else { 0 };
        descriptor(first + u64::from(n * piece), piece.into(), flags | next, n + 1)
    };
    let bytes: Vec<u8> = (0..count).flat_map(entry).collect();
    vm.guest.buffer_area.write(vm.guest.buffer_at(ring, at), &bytes);
    bytes.len() as u32
}

#[test]
fn a_burst_of_long_chains_is_read_in_parts() {
    let mut vm = Vm::new(1, INDIRECT);
    let frame = datagram(9, 1, 180);
    // Each byte has a descriptor.
    let count = (HEADER + frame.len()) as u16;
    assert!((200..=256).contains(&count));
    vm.guest.buffer_area.write(vm.guest.buffer_at(1, 100), &[&[0; HEADER][..], &frame].concat());
    let len = table(&vm, 1, 200, 100, (count, 1), 0);
    let heads: Vec<u16> = (0..BURST as u16).collect();
    for head in &heads {
        vm.guest.describe(1, *head, vm.guest.buffer(1, 200), len, TABLE, 0);
    }
    vm.guest.make_available(1, &heads);
    let mut left = BURST;
    while left > 0 {
        let frames = receive(&mut vm);
        assert!(
            (1..=3).contains(&frames.len()),
            "{} chains of {count} descriptors in one call",
            frames.len()
        );
        assert!(frames.iter().all(|received| *received == frame));
        left -= frames.len();
        assert_eq!(vm.host.port.arm(), left == 0, "a port with frames left does not sleep");
    }
}

#[test]
fn frames_that_are_dropped_count_too() {
    let mut vm = Vm::new(1, INDIRECT);
    // Too long for any frame: 40 descriptors of 2 KiB, all of the same buffer.
    let first = vm.guest.buffer(1, 100);
    let entries = (0..40).map(|n| descriptor(first, 2048, if n < 39 { NEXT } else { 0 }, n + 1));
    let bytes = entries.collect::<Vec<_>>().concat();
    vm.guest.buffer_area.write(vm.guest.buffer_at(1, 200), &bytes);
    let heads: Vec<u16> = (0..BURST as u16).collect();
    for head in &heads {
        vm.guest.describe(1, *head, vm.guest.buffer(1, 200), bytes.len() as u32, TABLE, 0);
    }
    vm.guest.make_available(1, &heads);
    let mut dropped = Vec::new();
    while dropped.iter().sum::<u64>() < BURST as u64 {
        assert!(receive(&mut vm).is_empty());
        dropped.push(vm.host.port.take_rx_drops());
    }
    assert!(dropped.iter().all(|dropped| (1..=8).contains(dropped)), "{dropped:?}");
}

#[test]
fn receive_buffers_in_crumbs_cost_the_guest_its_frames() {
    const COUNT: u16 = 200;
    let mut vm = Vm::new(1, INDIRECT | MERGEABLE);
    let len = table(&vm, 0, 200, 220, (COUNT, 16), WRITE);
    for head in 0..BURST as u16 {
        vm.guest.describe(0, head, vm.guest.buffer(0, 200), len, TABLE, 0);
    }
    let sent = vm.host.send(&numbered(0..BURST as u32, 100));
    // 64 descriptors for each of the burst's frames.
    let most = (64 * BURST).div_ceil(usize::from(COUNT)) as u64;
    assert_eq!((sent.packets, sent.full), (most, BURST as u64 - most));
    assert_eq!(vm.guest.used(0), most as u16);
    // One by one they pass as far as one frame's part goes: a chain is always finished.
    assert_eq!(vm.host.send(&numbered(0..1, 100)).packets, 1);
}
