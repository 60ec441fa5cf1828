//! Interfaces that are full, down or gone.

use std::time::Duration;

use culvert_ports::{AfPacket, AfPacketOptions, Tap};
use culvert_switch::{Pool, Sent, SwitchPort};

use crate::lan_host::{FdbEntry, datagram, is_ours, number};
use crate::namespace::{LIMIT, Namespace, may_begin, may_begin_with_taps, until};

fn burst(n: u32, len: usize) -> Vec<Vec<u8>> {
    (0..n).map(|number| datagram(9, number, len)).collect()
}

fn tap(namespace: &Namespace, name: &'static str) -> FdbEntry<Tap> {
    FdbEntry::of(namespace.within(move || Tap::open(name, 1500, None).unwrap()))
}

fn in_all(sent: &Sent) -> u64 {
    sent.packets + sent.full + sent.down + sent.refused
}

#[test]
fn a_full_tap_is_told_to_who_sends_and_counted_where_it_is_read() {
    if !may_begin_with_taps() {
        return;
    }
    let here = Namespace::new();
    let mut vm = tap(&here, "vm");
    let mut other = FdbEntry::on(&here, "vm", AfPacketOptions::default());
    // The kernel keeps 1000 frames for a TAP whose reader is slow (its transmit queue length).
    vm.receive();
    vm.port.take_rx_drops();
    let sent = other.send(&burst(2000, 60));
    assert_eq!((in_all(&sent), sent.down, sent.refused), (2000, 0, 0));
    assert!(sent.full >= 900, "{sent:?}");
    let mut got = 0;
    until("what was taken has come", || {
        got += vm.receive().iter().filter(|frame| is_ours(frame)).count() as u64;
        got >= sent.packets
    });
    assert_eq!(got, sent.packets);
    assert!(vm.port.take_rx_drops() >= sent.full);
    assert_eq!(vm.port.take_rx_drops(), 0, "each is told once");
    let sent = other.send(&burst(100, 60));
    assert_eq!((sent.packets, sent.full), (100, 0), "there is room again");
}

#[test]
fn a_tap_whose_frames_are_not_taken_away_fills_and_others_do_not_notice() {
    if !may_begin_with_taps() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("slow", &there, "far");
    let (mut vm, mut other) = (tap(&here, "vm"), tap(&here, "other"));
    here.run("tc qdisc add dev vm clsact");
    let all = "tc filter add dev vm ingress protocol all u32 match u32 0 0";
    here.run(&format!("{all} action mirred egress redirect dev slow"));
    // A neighbour that takes as good as nothing, behind a queue without an end.
    here.run("tc qdisc add dev slow root tbf rate 8kbit burst 2000 limit 100000000");
    let mut sent = Sent::default();
    for _ in 0..4 {
        let more = vm.send(&burst(2000, 1400));
        (sent.packets, sent.full) = (sent.packets + more.packets, sent.full + more.full);
        assert_eq!(in_all(&more), 2000);
    }
    assert!(sent.packets > 100 && sent.full > 1000, "{sent:?}");
    assert_eq!(other.send(&burst(2000, 1400)).packets, 2000);
}

#[test]
fn a_tap_goes_down_comes_up_and_is_deleted() {
    if !may_begin_with_taps() {
        return;
    }
    let here = Namespace::new();
    let mut vm = tap(&here, "vm");
    assert!(vm.port.link() && vm.send(&burst(3, 60)).packets == 3);
    here.run("ip link set vm down");
    assert!(!vm.port.link());
    assert_eq!(vm.send(&burst(3, 60)), Sent { down: 3, ..Sent::default() });
    vm.receive();
    assert!(vm.port.arm() && !vm.readable(Duration::ZERO), "a downed TAP does not keep its reader busy");
    here.run("ip link set vm up");
    assert!(vm.port.link() && vm.send(&burst(3, 60)).packets == 3);
    let mut other = FdbEntry::on(&here, "vm", AfPacketOptions::default());
    other.send(&burst(1, 60));
    vm.receive_until(is_ours);
    here.run("ip link del vm");
    assert!(!vm.port.link() && vm.readable(LIMIT) && !vm.port.arm());
    assert!(vm.port.receive(&mut vm.pool, &mut Vec::new(), 32).is_err());
    assert!(vm.try_send(&burst(3, 60)).is_err());
    assert_eq!(vm.port.take_rx_drops(), 0);
    let vm = tap(&here, "vm");
    drop(vm);
    until("a TAP goes with its port", || !here.run("ip link show").contains("vm:"));
}

#[test]
fn an_interface_goes_down_comes_up_and_is_deleted() {
    if !may_begin() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.join("wire", &there, "far");
    let mut wire = FdbEntry::on(&here, "wire", AfPacketOptions::default());
    let mut far = FdbEntry::on(&there, "far", AfPacketOptions::default());
    until("there is a carrier", || wire.port.link());
    assert_eq!(wire.send(&burst(3, 60)).packets, 3);
    there.run("ip link set far down");
    until("there is none", || !wire.port.link());
    assert_eq!(wire.send(&burst(3, 60)), Sent { down: 3, ..Sent::default() });
    there.run("ip link set far up");
    here.run("ip link set wire down");
    assert!(!wire.port.link());
    assert_eq!(wire.send(&burst(3, 60)), Sent { down: 3, ..Sent::default() });
    wire.receive();
    assert!(wire.readable(LIMIT), "the kernel tells it");
    assert!(
        wire.port.arm() && !wire.readable(Duration::ZERO),
        "a downed interface does not keep its reader busy"
    );
    here.run("ip link set wire up");
    until("there is a carrier", || wire.port.link() && far.port.link());
    far.receive();
    far.port.arm();
    assert_eq!(wire.send(&burst(3, 60)).packets, 3);
    far.receive_until(|frame| is_ours(frame) && number(frame) == 2);
    far.send(&burst(3, 60));
    wire.receive_until(|frame| is_ours(frame) && number(frame) == 2);
    // A new name is no other interface.
    here.run("ip link set wire name renamed");
    assert!(wire.port.link());
    here.run("ip link del renamed");
    assert!(!wire.port.link() && wire.try_send(&burst(3, 60)).is_err());
    until("the reader is told", || {
        let armed = wire.port.arm();
        wire.port.receive(&mut wire.pool, &mut Vec::new(), 32).is_err() && !armed
    });
    let missing = here.within(|| AfPacket::open("wire", &AfPacketOptions::default()).err());
    assert!(missing.is_some());
}

#[test]
fn frames_for_which_there_is_no_buffer_are_counted() {
    if !may_begin_with_taps() {
        return;
    }
    let here = Namespace::new();
    let mut vm = FdbEntry::of(here.within(|| Tap::open("vm", 9000, None).unwrap()));
    let mut other = FdbEntry::on(&here, "vm", AfPacketOptions::default());
    vm.receive();
    for len in [1870, 1878, 1879, 1880, 5000, 8900] {
        let frame = datagram(9, 0, len);
        vm.pool = Pool::new(4, 1).unwrap();
        other.send(std::slice::from_ref(&frame));
        assert_eq!(vm.receive_until(is_ours).last(), Some(&frame), "{len}");
        vm.pool = Pool::new(4, 0).unwrap();
        vm.port.take_rx_drops();
        other.send(&[frame.clone(), datagram(9, 1, 60)]);
        let mut got = vm.receive_until(|frame| is_ours(frame) && number(frame) == 1);
        got.retain(|frame| is_ours(frame));
        let fits = frame.len() <= 1920;
        assert_eq!((got.len(), vm.port.take_rx_drops()), if fits { (2, 0) } else { (1, 1) }, "{len}");
    }
}

#[test]
fn impossible_names_are_refused() {
    if !may_begin_with_taps() {
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
