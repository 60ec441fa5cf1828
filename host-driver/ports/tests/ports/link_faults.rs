//! TAPs and packet sockets on interfaces that are full, down or removed.

use std::time::Duration;

use culvert_packet::MacAddr;
use culvert_ports::{AfPacket, AfPacketOptions, Tap};
use culvert_switch::{Pool, Sent, SwitchPort};

use crate::frames::{datagram, is_ours, number, numbered};
use crate::namespace::{Namespace, TIMEOUT, can_make_namespaces, can_use_taps, wait_until};
use crate::test_port::TestPort;

fn tap(namespace: &Namespace, name: &'static str) -> TestPort<Tap> {
    TestPort::new(namespace.within(move || Tap::open(name, 1500, None).unwrap()))
}

fn total(sent: &Sent) -> u64 {
    sent.packets + sent.full + sent.down + sent.refused
}

#[test]
fn a_full_tap_is_reported_to_the_sender_and_counted_by_the_reader() {
    if !can_use_taps() {
        return;
    }
    let here = Namespace::new();
    let mut vm = tap(&here, "vm");
    let mut other = TestPort::packet_socket(&here, "vm", AfPacketOptions::default());
    // The kernel keeps 1000 frames for a TAP with a slow reader (its transmit queue length).
    vm.receive();
    vm.take_rx_drops();
    let sent = other.send(&numbered(0..2000, 60));
    assert_eq!((total(&sent), sent.down, sent.refused), (2000, 0, 0));
    assert!(sent.full >= 900, "{sent:?}");
    let mut got = 0;
    wait_until("what was taken has come", || {
        got += vm.receive().iter().filter(|frame| is_ours(frame)).count() as u64;
        got >= sent.packets
    });
    assert_eq!(got, sent.packets);
    assert!(vm.take_rx_drops() >= sent.full);
    assert_eq!(vm.take_rx_drops(), 0, "each is counted once");
    let sent = other.send(&numbered(0..100, 60));
    assert_eq!((sent.packets, sent.full), (100, 0), "there is room again");
}

#[test]
fn a_tap_that_does_not_drain_fills_without_affecting_others() {
    if !can_use_taps() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("slow", &there, "far");
    let (mut vm, mut other) = (tap(&here, "vm"), tap(&here, "other"));
    here.redirect("vm", "slow");
    // An interface that sends almost nothing, behind a queue without a bound.
    here.run("tc qdisc add dev slow root tbf rate 8kbit burst 2000 limit 100000000");
    let mut sent = Sent::default();
    for _ in 0..4 {
        let more = vm.send(&numbered(0..2000, 1400));
        (sent.packets, sent.full) = (sent.packets + more.packets, sent.full + more.full);
        assert_eq!(total(&more), 2000);
    }
    assert!(sent.packets > 100 && sent.full > 1000, "{sent:?}");
    assert_eq!(other.send(&numbered(0..2000, 1400)).packets, 2000);
}

#[test]
fn a_tap_goes_down_comes_up_and_is_deleted() {
    if !can_use_taps() {
        return;
    }
    let here = Namespace::new();
    let mut vm = tap(&here, "vm");
    assert!(vm.link() && vm.send(&numbered(0..3, 60)).packets == 3);
    here.run("ip link set vm down");
    assert!(!vm.link());
    assert_eq!(vm.send(&numbered(0..3, 60)), Sent { down: 3, ..Sent::default() });
    vm.receive();
    assert!(vm.port.arm() && !vm.readable(Duration::ZERO), "a downed TAP does not keep its reader busy");
    here.run("ip link set vm up");
    assert!(vm.link() && vm.send(&numbered(0..3, 60)).packets == 3);
    let mut other = TestPort::packet_socket(&here, "vm", AfPacketOptions::default());
    other.send(&numbered(0..1, 60));
    vm.receive_until(is_ours);
    // The kernel's own frames may have been dropped while it was down.
    vm.take_rx_drops();
    here.run("ip link del vm");
    assert!(!vm.link() && vm.readable(TIMEOUT) && !vm.port.arm());
    assert!(vm.port.receive(&mut vm.pool, &mut Vec::new(), 32).is_err());
    assert!(vm.try_send(&numbered(0..3, 60)).is_err());
    assert_eq!(vm.take_rx_drops(), 0);
    let vm = tap(&here, "vm");
    drop(vm);
    wait_until("a TAP goes with its port", || !here.run("ip link show").contains("vm:"));
}

#[test]
fn an_interface_goes_down_comes_up_and_is_deleted() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let mut wire = TestPort::packet_socket(&here, "wire", AfPacketOptions::default());
    let mut far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    wait_until("there is a carrier", || wire.link());
    assert_eq!(wire.send(&numbered(0..3, 60)).packets, 3);
    there.run("ip link set far down");
    wait_until("there is none", || !wire.link());
    assert_eq!(wire.send(&numbered(0..3, 60)), Sent { down: 3, ..Sent::default() });
    there.run("ip link set far up");
    here.run("ip link set wire down");
    assert!(!wire.link());
    assert_eq!(wire.send(&numbered(0..3, 60)), Sent { down: 3, ..Sent::default() });
    wire.receive();
    assert!(wire.readable(TIMEOUT), "the kernel tells it");
    assert!(
        wire.port.arm() && !wire.readable(Duration::ZERO),
        "a downed interface does not keep its reader busy"
    );
    here.run("ip link set wire up");
    wait_until("there is a carrier", || wire.link() && far.link());
    far.receive();
    far.port.arm();
    assert_eq!(wire.send(&numbered(0..3, 60)).packets, 3);
    far.receive_until(|frame| is_ours(frame) && number(frame) == 2);
    far.send(&numbered(0..3, 60));
    wire.receive_until(|frame| is_ours(frame) && number(frame) == 2);
    // The port follows a renamed interface.
    here.run("ip link set wire name renamed");
    assert!(wire.link());
    here.run("ip link del renamed");
    assert!(!wire.link() && wire.try_send(&numbered(0..3, 60)).is_err());
    wait_until("the reader is notified", || {
        let armed = wire.port.arm();
        wire.port.receive(&mut wire.pool, &mut Vec::new(), 32).is_err() && !armed
    });
    let missing = here.within(|| AfPacket::open("wire", &AfPacketOptions::default()).err());
    assert!(missing.is_some());
}

#[test]
fn frames_without_a_buffer_are_counted() {
    if !can_use_taps() {
        return;
    }
    let here = Namespace::new();
    let mut vm = TestPort::new(here.within(|| Tap::open("vm", 9000, None).unwrap()));
    let mut other = TestPort::packet_socket(&here, "vm", AfPacketOptions::default());
    vm.receive();
    for len in [1870, 1878, 1879, 1880, 5000, 8900] {
        let frame = datagram(9, 0, len);
        vm.pool = Pool::new(4, 1).unwrap();
        other.send(std::slice::from_ref(&frame));
        assert_eq!(vm.receive_until(is_ours).last(), Some(&frame), "{len}");
        vm.pool = Pool::new(4, 0).unwrap();
        vm.take_rx_drops();
        other.send(&[frame.clone(), datagram(9, 1, 60)]);
        let mut got = vm.receive_until(|frame| is_ours(frame) && number(frame) == 1);
        got.retain(|frame| is_ours(frame));
        let fits = frame.len() <= 1920;
        assert_eq!((got.len(), vm.take_rx_drops()), if fits { (2, 0) } else { (1, 1) }, "{len}");
    }
}

#[test]
fn a_tap_that_is_there_keeps_its_mac_and_its_bridge() {
    if !can_use_taps() {
        return;
    }
    let here = Namespace::new();
    let open = |mac: u8| {
        let mac = MacAddr([0xfe, 0, 0, 0, 0, mac]);
        here.within(move || Tap::open_persistent("vm", 1500, Some(mac)).unwrap())
    };
    let tap = open(1);
    assert!(here.run("ip link show vm").contains("link/ether fe:00:00:00:00:01"), "a new one gets it");
    here.run("ip link add bridge type bridge");
    here.run("ip link set vm master bridge");
    drop(tap);
    let tap = open(2);
    let shown = here.run("ip link show vm");
    assert!(shown.contains("link/ether fe:00:00:00:00:01") && shown.contains("master bridge"), "{shown}");
    here.run("ip link set vm address 02:00:00:00:00:07");
    drop(tap);
    let mut tap = open(3);
    assert!(here.run("ip link show vm").contains("link/ether 02:00:00:00:00:07"), "its user's");
    let busy = here.within(|| Tap::open("vm", 1500, None).err()).unwrap();
    assert_eq!(busy.kind(), std::io::ErrorKind::ResourceBusy, "{busy}");
    tap.destroy();
}

#[test]
fn invalid_names_are_refused() {
    if !can_use_taps() {
        return;
    }
    let here = Namespace::new();
    for name in ["", "a-name-of-16-byte", "tap%d", "a/b", "a\0b"] {
        let refused = |error: Option<std::io::Error>| {
            error.is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidInput)
        };
        assert!(refused(here.within(move || Tap::open(name, 1500, None).err())), "{name:?}");
        let options = AfPacketOptions::default();
        assert!(refused(here.within(move || AfPacket::open(name, &options).err())), "{name:?}");
    }
}
