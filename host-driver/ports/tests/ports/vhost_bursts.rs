//! Bursts on a guest's rings: what a burst has brought counts, whatever ends it.

use culvert_virtio::{MemoryFault, RingFault};

use crate::vhost_frames::{Vm, numbered};
use crate::vhost_guest::{SIZE, WRITE};

fn faults(vm: &Vm) -> u64 {
    vm.station.port.status().counters().faults.iter().sum()
}

#[test]
fn frames_before_a_fault_in_a_burst_are_the_guests() {
    let mut vm = Vm::new(1, 0);
    // Nowhere in the guest's memory: the third of five frames.
    vm.guest.describe(0, 2, 1 << 60, 2048, WRITE, 0);
    let frames = numbered(0..5, 100);
    let sent = vm.station.send(&frames);
    assert_eq!((sent.packets, sent.down, faults(&vm)), (2, 3, 1));
    let got: Vec<Vec<u8>> = vm.guest.receive(0).into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(got, frames[..2]);
    assert_eq!(
        vm.station.port.status().counters().faults,
        RingFault::ALL.map(|f| u64::from(f == RingFault::Memory(MemoryFault::Unmapped)))
    );
}

#[test]
fn frames_before_a_fault_come_from_any_part_of_a_burst() {
    for before in [0, 1, 31, 32, 40, 64] {
        let mut vm = Vm::new(1, 0);
        let frames = numbered(0..before, 100);
        frames.iter().for_each(|frame| vm.guest.send(frame));
        vm.guest.offer(1, &[SIZE]);
        assert_eq!(vm.station.receive(), frames);
        assert_eq!((faults(&vm), usize::from(vm.guest.used(1))), (1, frames.len()));
    }
}

#[test]
fn frames_wait_in_order_while_there_are_no_buffers() {
    let mut vm = Vm::new(1, 0);
    let frames = numbered(0..100, 100);
    frames.iter().for_each(|frame| vm.guest.send(frame));
    let mut kept = Vec::new();
    while vm.station.pool.common() > 40 {
        kept.push(vm.station.pool.take().unwrap());
    }
    assert_eq!(vm.station.receive(), frames[..40]);
    assert_eq!(usize::from(vm.guest.used(1)), 40);
    assert_eq!(vm.station.receive(), frames[40..80]);
    kept.into_iter().for_each(|packet| vm.station.pool.give(packet));
    assert_eq!(vm.station.receive(), frames[80..]);
    assert_eq!(faults(&vm), 0);
}
