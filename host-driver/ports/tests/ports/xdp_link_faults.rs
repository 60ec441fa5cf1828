//! XDP sockets on interfaces that are down, removed or in use, and in a process that is killed.

use std::io::{BufRead, BufReader, ErrorKind};
use std::process::{Command, Stdio};
use std::time::Duration;

use culvert_ports::{AfPacketOptions, AfXdp, AfXdpOptions};
use culvert_switch::{Sent, SwitchPort};

use crate::frames::{datagram, is_ours, number, numbered};
use crate::namespace::{Namespace, can_use_xdp, wait_until};
use crate::test_port::TestPort;

/// Whether there is an XDP program on the interface.
fn has_program(namespace: &Namespace, interface: &str) -> bool {
    namespace.run(&format!("ip link show {interface}")).contains("prog/xdp")
}

#[test]
fn an_interface_goes_down_comes_up_and_is_deleted() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let mut wire = TestPort::xdp(&here, "wire", AfXdpOptions::default());
    let mut far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    wait_until("there is a carrier", || wire.link());
    assert_eq!(wire.send(&numbered(0..3, 60)).packets, 3);
    there.run("ip link set far down");
    wait_until("there is none", || !wire.link());
    assert_eq!((wire.send(&numbered(0..3, 60)).down, wire.send(&numbered(0..3, 60)).packets), (3, 0));
    there.run("ip link set far up");
    here.run("ip link set wire down");
    assert!(!wire.link());
    assert_eq!(wire.send(&numbered(0..3, 60)), Sent { down: 3, ..Sent::default() });
    wire.receive();
    assert!(wire.port.arm() && !wire.readable(Duration::ZERO), "it does not keep its reader busy");
    here.run("ip link set wire up");
    wait_until("there is a carrier", || wire.link() && far.link());
    far.receive();
    far.port.arm();
    let mut sent = numbered(0..3, 60);
    sent.push(datagram(9, 77, 60));
    assert_eq!(wire.send(&sent).packets, 4);
    let got = far.receive_until(|frame| is_ours(frame) && number(frame) == 77);
    assert_eq!(got.iter().filter(|frame| is_ours(frame)).count(), 4, "what was down is not sent now");
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
    assert!(here.within(|| AfXdp::open("wire", &AfXdpOptions::default()).err()).is_some());
}

#[test]
fn a_larger_mtu_breaks_the_port_so_that_it_is_reopened() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let mut wire = TestPort::xdp(&here, "wire", AfXdpOptions::default());
    here.run("ip link set wire mtu 1400");
    assert!(wire.link());
    assert_eq!(wire.send(&[datagram(9, 0, 1400)]).refused, 1, "a smaller one counts at once");
    wire.receive();
    here.run("ip link set wire mtu 9000");
    wire.link();
    assert!(wire.port.receive(&mut wire.pool, &mut Vec::new(), 32).is_err());
}

#[test]
fn a_program_stays_attached_until_its_port_is_dropped() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    for _ in 0..10 {
        let port = here.within(|| AfXdp::open("wire", &AfXdpOptions::default()).unwrap());
        assert!(has_program(&here, "wire"));
        let second = here.within(|| AfXdp::open("wire", &AfXdpOptions::default()).err().unwrap());
        assert_eq!(second.kind(), ErrorKind::ResourceBusy, "{second}");
        drop(port);
        assert!(!has_program(&here, "wire"));
    }
}

/// Set for the process that is killed.
const VICTIM: &str = "CULVERT_TEST_IS_TO_BE_KILLED";

#[test]
fn a_process_that_is_killed_leaves_no_program_behind() {
    if std::env::var_os(VICTIM).is_some() {
        let _port = AfXdp::open("wire", &AfXdpOptions::default()).unwrap();
        println!("open");
        std::thread::sleep(crate::namespace::TIMEOUT);
        return;
    }
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let name = std::thread::current().name().unwrap().to_owned();
    let mut victim = here.within(move || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &name, "--nocapture"]).env(VICTIM, "1").stdout(Stdio::piped());
        command.spawn().unwrap()
    });
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    // The test runner may print in front of it.
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("open")), "the victim opens its port");
    assert!(has_program(&here, "wire"));
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("the program is gone", || !has_program(&here, "wire"));
    let mut wire = TestPort::xdp(&here, "wire", AfXdpOptions::default());
    TestPort::packet_socket(&there, "far", AfPacketOptions::default()).send(&numbered(0..3, 60));
    wire.receive_until(|frame| is_ours(frame) && number(frame) == 2);
}
