//! Ports that a worker of the switch serves, while links change, interfaces are removed and the kernel's RTNL is held. In debug
//! builds a worker that is about to wait for the kernel panics, and then does not answer.

use culvert_flow::{HashSecret, Port};
use culvert_packet::VportId;
use culvert_ports::{AfPacket, AfPacketOptions, Tap};
use culvert_switch::{Opener, Switch, SwitchSettings};

use crate::frames::datagram;
use crate::namespace::{Namespace, can_use_taps, wait_until};
use crate::test_port::TestPort;

const VM: Port = Port::Vport(VportId(1));
const UPLINK: Port = Port::Uplink(0);

/// A switch in a namespace, whose threads all are there.
fn switch(here: &Namespace) -> Switch {
    here.within(|| Switch::start(&SwitchSettings::new(1 << 10, HashSecret([3; 9]))).unwrap())
}

fn link(switch: &Switch, at: Port) -> bool {
    switch.ports().unwrap().iter().any(|(port, link, _)| *port == at && *link)
}

fn received(switch: &Switch, at: Port) -> u64 {
    switch.ports().unwrap().iter().filter(|(port, ..)| *port == at).map(|(_, _, c)| c.in_packets).sum()
}

fn tap() -> Opener {
    Box::new(|| Ok(Box::new(Tap::open_persistent("vm", 1500, None)?)))
}

#[test]
fn a_worker_never_waits_for_the_kernel() {
    if !can_use_taps() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let switch = switch(&here);
    switch.attach(VM, tap()).unwrap();
    let uplink = || Ok(Box::new(AfPacket::open("wire", &AfPacketOptions::default())?) as _);
    switch.attach(UPLINK, Box::new(uplink)).unwrap();
    wait_until("both links are up", || link(&switch, VM) && link(&switch, UPLINK));

    there.run("ip link set far down");
    wait_until("the uplink is down", || !link(&switch, UPLINK));
    there.run("ip link set far up");
    wait_until("the uplink is up", || link(&switch, UPLINK));
    // An interface that was deleted is opened again, as soon as there is one.
    here.run("ip link del wire");
    wait_until("the uplink is down", || !link(&switch, UPLINK));
    here.connect("wire", &there, "far");
    here.run("ip link del vm");
    wait_until("the TAP is up again", || link(&switch, VM));
    wait_until("the uplink is up again", || link(&switch, UPLINK));

    // While another namespace with many interfaces is removed, which holds the RTNL, frames are received.
    let other = Namespace::new();
    for n in 0..200 {
        other.run(&format!("ip link add v{n} type veth peer name w{n}"));
    }
    let before = received(&switch, UPLINK);
    drop(other);
    let mut far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let mut sent = 0;
    wait_until("frames are received", || {
        sent += far.send(&[datagram(9, sent as u32, 60)]).packets;
        received(&switch, UPLINK) >= before + 50
    });
    assert!(sent >= 50);

    switch.detach(VM).unwrap();
    switch.detach(UPLINK).unwrap();
    assert_eq!(switch.ports().unwrap(), []);
    wait_until("the TAP is removed", || !here.run("ip link show").contains("vm:"));
}

#[test]
fn a_tap_in_another_namespace_keeps_its_link() {
    if !can_use_taps() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    let switch = switch(&here);
    switch.attach(VM, tap()).unwrap();
    wait_until("the link is up", || link(&switch, VM));
    here.move_to("vm", &there);
    wait_until("an interface that moves goes down", || !link(&switch, VM));
    there.run("ip link set vm up");
    wait_until("the link is up", || link(&switch, VM));
    let mut vm = TestPort::packet_socket(&there, "vm", AfPacketOptions::default());
    let before = received(&switch, VM);
    vm.send(&[datagram(9, 7, 60)]);
    wait_until("the frame is received", || received(&switch, VM) > before);
}
