//! Bursts on a guest's vrings that a fault or an empty pool ends: the frames before it count.

use culvert_virtio::{MemoryFault, RingFault};

use crate::frames::numbered;
use crate::vhost_guest::{SIZE, WRITE};
use crate::vhost_vm::Vm;

fn faults(vm: &Vm) -> u64 {
    vm.host.port.status().counters().faults.iter().sum()
}

#[test]
fn a_guest_gets_the_frames_before_a_fault() {
    let mut vm = Vm::new(1, 0);
    // The third of five buffers is outside the guest's memory.
    vm.guest.describe(0, 2, 1 << 60, 2048, WRITE, 0);
    let frames = numbered(0..5, 100);
    let sent = vm.host.send(&frames);
    assert_eq!((sent.packets, sent.down, faults(&vm)), (2, 3, 1));
    let got: Vec<Vec<u8>> = vm.guest.receive(0).into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(got, frames[..2]);
    assert_eq!(
        vm.host.port.status().counters().faults,
        RingFault::ALL.map(|f| u64::from(f == RingFault::Memory(MemoryFault::Unmapped)))
    );
}

#[test]
fn frames_before_a_fault_are_received() {
    for before in [0, 1, 31, 32, 40, 64] {
        let mut vm = Vm::new(1, 0);
        let frames = numbered(0..before, 100);
        frames.iter().for_each(|frame| vm.guest.send(frame));
        vm.guest.make_available(1, &[SIZE]);
        assert_eq!(vm.host.receive(), frames);
        assert_eq!((faults(&vm), usize::from(vm.guest.used(1))), (1, frames.len()));
    }
}

#[test]
fn frames_wait_in_order_while_the_pool_is_empty() {
    let mut vm = Vm::new(1, 0);
    let frames = numbered(0..100, 100);
    frames.iter().for_each(|frame| vm.guest.send(frame));
    let mut kept = Vec::new();
    while vm.host.pool.common() > 40 {
        kept.push(vm.host.pool.take().unwrap());
    }
    assert_eq!(vm.host.receive(), frames[..40]);
    assert_eq!(usize::from(vm.guest.used(1)), 40);
    assert_eq!(vm.host.receive(), frames[40..80]);
    kept.into_iter().for_each(|packet| vm.host.pool.give(packet));
    assert_eq!(vm.host.receive(), frames[80..]);
    assert_eq!(faults(&vm), 0);
}
