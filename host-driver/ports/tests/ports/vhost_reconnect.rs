//! Guests, VMMs and ports that end and start again: no frame is lost or duplicated.

use std::os::unix::net::UnixListener;

use culvert_ports::VhostUser;
use culvert_switch::SwitchPort;
use culvert_virtio::RingFault;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

use crate::frames::{datagram, number, numbered, numbers};
use crate::namespace::wait_until;
use crate::test_port::TestPort;
use crate::vhost_guest::{Guest, HEADER, MERGEABLE};
use crate::vhost_vm::{Vm, while_served};

/// The numbers of the frames that the guest has received.
fn received_by_guest(vm: &mut Vm) -> Vec<u32> {
    numbers(vm.guest.receive(0).iter().map(|(_, frame)| frame))
}

fn range(numbers: std::ops::Range<u32>) -> Vec<u32> {
    numbers.collect()
}

/// The guest sends frames, of which the port receives only `taken`.
fn send_and_take(vm: &mut Vm, frames: std::ops::Range<u32>, taken: usize) -> Vec<u32> {
    numbered(frames, 60).iter().for_each(|frame| vm.guest.send(frame));
    let mut packets = Vec::new();
    vm.host.port.receive(&mut vm.host.pool, &mut packets, taken).unwrap();
    let numbers = packets.iter().map(|packet| number(packet.bytes())).collect();
    packets.into_iter().for_each(|packet| vm.host.pool.give(packet));
    numbers
}

#[test]
fn a_vmm_that_reconnects_continues_where_it_was() {
    let mut vm = Vm::new(1, MERGEABLE);
    // More than a ring's worth before.
    for n in 0..3 {
        assert_eq!(send_and_take(&mut vm, n * 100..n * 100 + 100, 100), range(n * 100..n * 100 + 100));
    }
    for round in 0..5u32 {
        let first = 300 + round * 20;
        assert_eq!(send_and_take(&mut vm, first..first + 20, 7), range(first..first + 7));
        vm.host.send(&numbered(first..first + 20, 60));
        let _until_now = [0, 1].map(|n| vm.guest.interrupted(n));
        // The VMM dies with unread frames in both rings.
        let old = std::mem::replace(&mut vm.frontend, vhost::vhost_user::Frontend::from_stream(pair(), 2));
        drop(old);
        vm.wait_disconnected();
        assert_eq!(vm.host.send(&numbered(0..3, 60)).down, 3);
        assert!(vm.host.receive().is_empty());
        let (guest, path) = (&vm.guest, &vm.path);
        // As QEMU does, it sets the base that it remembers, or 0: the used index counts.
        vm.frontend = while_served(&mut vm.host, || {
            let mut frontend = guest.negotiate(path);
            guest.share_memory(&frontend);
            for n in 0..2 {
                let base = if round % 2 == 0 { guest.used(n) } else { 0 };
                if round % 2 == 0 {
                    guest.set_ring(&mut frontend, n, base);
                    continue;
                }
                // Another order, which is also a VMM's to choose.
                frontend.set_vring_enable(n, true).unwrap();
                frontend.set_vring_call(n, &guest.rings[n].call).unwrap();
                frontend.set_vring_addr(n, &guest.addresses(n)).unwrap();
                frontend.set_vring_num(n, 256).unwrap();
                frontend.set_vring_base(n, base).unwrap();
                frontend.set_vring_kick(n, &guest.rings[n].kick).unwrap();
            }
            frontend
        });
        let both = [0, 1].map(|n| vm.guest.interrupted(n));
        assert_eq!(both, [true; 2], "an interrupt that the former port may have missed is sent");
        assert_eq!(numbers(&vm.host.receive()), range(first + 7..first + 20));
        vm.host.send(&numbered(first + 20..first + 25, 60));
        assert_eq!(received_by_guest(&mut vm), range(first..first + 25));
    }
    assert_eq!(vm.host.port.status().counters().connections, 6);
}

fn pair() -> std::os::unix::net::UnixStream {
    std::os::unix::net::UnixStream::pair().unwrap().0
}

#[test]
fn a_reopened_port_continues_where_the_old_one_was() {
    let mut vm = Vm::new(1, 0);
    assert_eq!(send_and_take(&mut vm, 0..100, 60), range(0..60));
    vm.host.send(&numbered(0..10, 60));
    // The old one lets go of the path, also while a VMM is connected.
    drop(std::mem::replace(&mut vm.host, TestPort::new(other_port())));
    wait_until("the socket is removed", || !vm.path.exists());
    vm.host = TestPort::new(VhostUser::open(&vm.path, 1).unwrap());
    let (guest, path) = (&vm.guest, &vm.path);
    vm.frontend = while_served(&mut vm.host, || guest.connect(path));
    assert_eq!(numbers(&vm.host.receive()), range(60..100));
    vm.host.send(&numbered(10..20, 60));
    assert_eq!(received_by_guest(&mut vm), range(0..20));
}

fn other_port() -> VhostUser {
    VhostUser::open(&tempfile::tempdir().unwrap().path().join("other"), 1).unwrap()
}

#[test]
fn a_stale_socket_is_replaced_and_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    drop(UnixListener::bind(&path).unwrap());
    let port = VhostUser::open(&path, 1).unwrap();
    assert!(VhostUser::open(&path, 1).is_err(), "another port listens there");
    drop(port);
    wait_until("the socket is removed", || !path.exists());
    std::fs::write(&path, "mine").unwrap();
    assert!(VhostUser::open(&path, 1).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_driver_that_resets_finds_a_new_device() {
    let mut vm = Vm::new(1, 0);
    assert_eq!(send_and_take(&mut vm, 0..50, 30), range(0..30));
    vm.host.send(&numbered(0..10, 60));
    let bases = vm.serve(|_, frontend| [0, 1].map(|n| frontend.get_vring_base(n).unwrap()));
    assert_eq!(bases, [10, 30]);
    // Nothing is touched any more.
    assert!(!vm.host.port.link() && vm.host.receive().is_empty());
    assert_eq!((vm.host.send(&numbered(0..5, 60)).down, vm.guest.used(0)), (5, 10));
    // The same connection, new rings in new memory.
    vm.guest = Guest::new(1, MERGEABLE);
    vm.serve(|guest, frontend| {
        frontend.set_features(guest.features | 1 << 30).unwrap();
        guest.share_memory(frontend);
        (0..2).for_each(|n| guest.set_ring(frontend, n, 0));
    });
    assert_eq!(send_and_take(&mut vm, 0..5, 9), range(0..5));
    vm.host.send(&numbered(0..5, 60));
    assert_eq!(received_by_guest(&mut vm), range(0..5));
}

#[test]
fn a_new_memory_table_for_running_vrings_loses_nothing() {
    let mut vm = Vm::new(1, 0);
    for n in 0..20 {
        assert_eq!(send_and_take(&mut vm, n * 10..n * 10 + 10, 5).len(), 5);
        assert_eq!(vm.host.send(&numbered(n..n + 1, 60)).packets, 1);
        vm.serve(|guest, frontend| {
            guest.share_memory(frontend);
            frontend.set_vring_addr(1, &guest.addresses(1)).unwrap();
            frontend.set_vring_call(0, &guest.rings[0].call).unwrap();
        });
        let rest = numbers(&vm.host.receive());
        assert_eq!(rest, range(n * 10 + 5..n * 10 + 10));
    }
    assert_eq!(received_by_guest(&mut vm), range(0..20));
    assert!(vm.guest.interrupted(0));
}

#[test]
fn a_guest_that_dies_during_set_up_does_not_affect_others() {
    // After each step of its set-up, and in the middle of frames.
    let mut other = Vm::new(1, 0);
    let mut vm = Vm::new(1, 0);
    for steps in 0..14 {
        drop(std::mem::replace(&mut vm.frontend, vhost::vhost_user::Frontend::from_stream(pair(), 2)));
        vm.guest = Guest::new(1, 0);
        let (guest, path) = (&vm.guest, &vm.path);
        let dying = while_served(&mut vm.host, || {
            let mut frontend = guest.negotiate(path);
            for step in 0..steps {
                let n = usize::from(step > 7);
                match step {
                    0 | 1 => guest.share_memory(&frontend),
                    2 | 8 => frontend.set_vring_num(n, 256).unwrap(),
                    3 | 9 => frontend.set_vring_addr(n, &guest.addresses(n)).unwrap(),
                    4 | 10 => frontend.set_vring_kick(n, &guest.rings[n].kick).unwrap(),
                    5 | 11 => frontend.set_vring_call(n, &guest.rings[n].call).unwrap(),
                    6 | 12 => frontend.set_vring_err(n, &guest.rings[n].call).unwrap(),
                    _ => frontend.set_vring_enable(n, true).unwrap(),
                }
            }
            frontend
        });
        // The guest has sent as far as its set-up allows. Its memory is freed with it.
        for n in 0..10 {
            assert!(vm.guest.send_in(1, [0; HEADER], &datagram(9, n, 60), 2048));
        }
        let taken = vm.host.receive().len();
        assert_eq!(taken, if steps == 14 { 10 } else { 0 });
        assert_eq!(vm.host.send(&numbered(0..3, 60)).down, if steps > 7 { 0 } else { 3 });
        vm.guest = Guest::new(1, 0);
        drop(dying);
        vm.host.send(&numbered(0..3, 60));
        vm.wait_disconnected();
        assert!(vm.host.receive().is_empty());
        assert_eq!(vm.host.pool.free(), 4096 + 32);
        assert_eq!(send_and_take(&mut other, 0..5, 9), range(0..5));
    }
    assert_eq!(vm.host.port.status().counters().faults, [0; RingFault::COUNT]);
}
