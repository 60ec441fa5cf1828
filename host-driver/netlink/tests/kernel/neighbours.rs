//! Next hops as the kernel finds them.

use std::fmt::Write as _;
use std::io::ErrorKind;

use culvert_netlink::{Interface, NeighbourEvent, Neighbours};
use culvert_packet::MacAddr;

use crate::namespace::{Namespace, may_begin, may_begin_with_taps, until};
use crate::watch::{Watch, ip, mac, network};

const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);

#[test]
fn an_interface_is_as_the_kernel_has_it() {
    if !may_begin() {
        return;
    }
    let (here, _there) = network();
    here.run("ip link set eth0 mtu 1400 address 02:00:00:00:00:77");
    here.run("ip link add other type veth peer name end");
    here.run("ip addr add 198.51.100.1/24 dev other");
    here.run("ip link set end up");
    here.run("ip link set other up");
    here.run("ip route add default via 198.51.100.254 dev other");
    here.run("ip route add default via 192.0.2.254 dev eth0 metric 300");
    here.run("ip route add default via 192.0.2.253 dev eth0 metric 200");
    here.run("ip route add 203.0.113.0/24 via 192.0.2.252 dev eth0");
    let [eth0, other, missing, loopback] = here.within(|| {
        ["eth0", "other", "eth9", "lo"].map(|name| {
            let read = Interface::read(name);
            read.map(|i| (i.gateway(ip("192.0.2.1")).unwrap(), i.gateway(ip("::1")).unwrap(), i))
        })
    });
    let (gateway, none, interface) = eth0.unwrap();
    assert_eq!((gateway, none), (Some(ip("192.0.2.253")), None));
    assert_eq!(
        (&interface.name[..], interface.mac, interface.mtu, interface.up),
        ("eth0", OTHER, 1400, true)
    );
    assert!(interface.addresses.contains(&(ip("192.0.2.1"), 24)));
    assert!(interface.addresses.contains(&(ip("2001:db8::1"), 64)));
    assert!(interface.holds(ip("192.0.2.1")) && !interface.holds(ip("198.51.100.1")));
    assert_eq!(other.unwrap().0, Some(ip("198.51.100.254")));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    // It has a MAC, though of zeros.
    assert!(loopback.unwrap().2.addresses.contains(&(ip("127.0.0.1"), 8)));
}

#[test]
fn a_host_on_the_wire_is_its_own_next_hop() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    for (ours, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        let mut watch = Watch::open(&here, ours);
        watch.resolve(other);
        watch.expect_resolved(other, other, far);
        assert_eq!(watch.poll(), [], "nothing is said twice");
        watch.resolve(other);
        watch.expect_resolved(other, other, far);
    }
}

#[test]
fn a_host_beyond_a_gateway_is_reached_by_its_mac() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    here.run("ip route add 198.51.100.0/24 via 192.0.2.2");
    here.run("ip route add 203.0.113.0/24 via inet6 2001:db8::2");
    here.run("ip route add 2001:db8:5::/48 via 2001:db8::2");
    let mut watch = Watch::open(&here, "192.0.2.1");
    watch.resolve("198.51.100.9");
    watch.expect_resolved("198.51.100.9", "192.0.2.2", far);
    watch.resolve("203.0.113.9");
    watch.expect_resolved("203.0.113.9", "2001:db8::2", far);
    let mut watch = Watch::open(&here, "2001:db8::1");
    watch.resolve("2001:db8:5::9");
    watch.expect_resolved("2001:db8:5::9", "2001:db8::2", far);
}

#[test]
fn the_route_is_that_of_our_address() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    here.run("ip link add other type veth peer name end");
    here.run("ip addr add 198.51.100.1/24 dev other");
    here.run("ip link set end up");
    here.run("ip link set other up");
    here.run("ip route add 203.0.113.0/24 via 198.51.100.2");
    let mut watch = Watch::open(&here, "192.0.2.1");
    watch.resolve("203.0.113.9");
    watch.expect_no_route("203.0.113.9");
    here.run("ip route add 203.0.113.0/24 via 192.0.2.2 table 100");
    here.run("ip rule add from 192.0.2.1 table 100");
    watch.expect_resolved("203.0.113.9", "192.0.2.2", far);
}

#[test]
fn a_silent_neighbour_is_asked_again() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    for (ours, other, net) in [("192.0.2.1", "192.0.2.3", 24), ("2001:db8::1", "2001:db8::3", 64)] {
        let mut watch = Watch::open(&here, ours);
        watch.resolve(other);
        watch.expect_unanswered(other, other);
        there.run(&format!("ip addr add {other}/{net} dev far"));
        watch.skip(5000);
        watch.expect_resolved(other, other, far);
    }
}

#[test]
fn a_neighbour_whose_mac_changes_is_found_again() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    here.run("sysctl -qw net.ipv4.neigh.eth0.delay_first_probe_time=1");
    let mut watch = Watch::open(&here, "192.0.2.1");
    here.run("ip route add 198.51.100.0/24 via 192.0.2.2");
    for remote in ["192.0.2.2", "198.51.100.1", "198.51.100.2"] {
        watch.resolve(remote);
        watch.expect_resolved(remote, "192.0.2.2", far);
    }
    // It tells nobody, and the kernel does not ask about what is stale unless somebody uses it.
    there.run("ip link set far address 02:00:00:00:00:77");
    here.run(&format!("ip neigh change 192.0.2.2 lladdr {far} dev eth0 nud stale"));
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let reached =
            |event: &NeighbourEvent| matches!(event, NeighbourEvent::Resolved { mac, .. } if *mac == OTHER);
        let silent = |event: &NeighbourEvent| matches!(event, NeighbourEvent::Unanswered { .. });
        let event = watch.until("the new MAC", |event| reached(event) || silent(event));
        assert!(reached(&event), "a neighbour that only has another MAC is not silent");
        seen.push(event);
    }
}

#[test]
fn a_mac_that_is_announced_is_taken_over() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    here.run("sysctl -qw net.ipv4.neigh.eth0.locktime=0");
    there.run("sysctl -qw net.ipv4.conf.far.arp_notify=1");
    let mut watch = Watch::open(&here, "192.0.2.1");
    watch.resolve("192.0.2.2");
    watch.expect_resolved("192.0.2.2", "192.0.2.2", far);
    there.run("ip link set far address 02:00:00:00:00:77");
    watch.expect_resolved("192.0.2.2", "192.0.2.2", OTHER);
}

#[test]
fn routes_come_and_go() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    for host in ["192.0.2.3/24", "2001:db8::3/64"] {
        there.run(&format!("ip addr add {host} dev far"));
    }
    here.run("ip link add other type veth peer name end");
    here.run("ip link set end up");
    here.run("ip link set other up");
    for (ours, a, b, net, remote) in [
        ("192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.0/24", "198.51.100.9"),
        ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:5::/48", "2001:db8:5::9"),
    ] {
        let mut watch = Watch::open(&here, ours);
        watch.resolve(remote);
        watch.expect_no_route(remote);
        here.run(&format!("ip route add {net} via {a}"));
        watch.expect_resolved(remote, a, far);
        here.run(&format!("ip route replace {net} via {b}"));
        watch.expect_resolved(remote, b, far);
        here.run(&format!("ip route add {remote} via {a}"));
        watch.expect_resolved(remote, a, far);
        here.run(&format!("ip route replace {remote} dev other"));
        watch.expect_no_route(remote);
        here.run(&format!("ip route del {remote}"));
        watch.expect_resolved(remote, b, far);
        here.run(&format!("ip route add blackhole {remote}"));
        watch.expect_no_route(remote);
        watch.neighbours.retain(|_| false);
        here.run(&format!("ip route del {remote}"));
        assert_eq!(watch.poll(), [], "nobody wants to know any more");
    }
}

#[test]
fn next_hop_objects_change_routes() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    there.run("ip addr add 192.0.2.3/24 dev far");
    // Routes that only have another next hop by it are not told of.
    here.run("sysctl -qw net.ipv4.nexthop_compat_mode=0");
    here.run("ip nexthop add id 7 via 192.0.2.2 dev eth0");
    here.run("ip route add 198.51.100.0/24 nhid 7");
    let mut watch = Watch::open(&here, "192.0.2.1");
    watch.resolve("198.51.100.9");
    watch.expect_resolved("198.51.100.9", "192.0.2.2", far);
    here.run("ip nexthop replace id 7 via 192.0.2.3 dev eth0");
    watch.expect_resolved("198.51.100.9", "192.0.2.3", far);
}

#[test]
fn the_interface_goes_down_and_up_and_away() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    let mut watch = Watch::open(&here, "192.0.2.1");
    until("the wire is up", || {
        watch.poll();
        watch.neighbours.interface().up
    });
    watch.resolve("192.0.2.2");
    watch.expect_resolved("192.0.2.2", "192.0.2.2", far);
    there.run("ip link set far down");
    watch.expect_interface("the link goes", |interface| !interface.up);
    there.run("ip link set far address 02:00:00:00:00:77");
    there.run("ip link set far up");
    watch.expect_interface("the link comes", |interface| interface.up);
    watch.expect_resolved("192.0.2.2", "192.0.2.2", OTHER);
    here.run("ip link set eth0 down");
    watch.expect_no_route("192.0.2.2");
    here.run("ip link set eth0 up");
    watch.expect_resolved("192.0.2.2", "192.0.2.2", OTHER);
    here.run("ip link set eth0 mtu 1300");
    watch.expect_interface("the MTU changes", |interface| interface.mtu == 1300);
    here.run("ip addr del 192.0.2.1/24 dev eth0");
    watch.expect_interface("the address goes", |interface| !interface.holds(ip("192.0.2.1")));
    watch.expect_no_route("192.0.2.2");
    here.run("ip addr add 192.0.2.1/24 dev eth0");
    watch.expect_interface("the address comes", |interface| interface.holds(ip("192.0.2.1")));
    watch.expect_resolved("192.0.2.2", "192.0.2.2", OTHER);
    here.run("ip link del eth0");
    watch.until("the interface goes", |event| *event == NeighbourEvent::InterfaceRemoved);
    here.run("ip link add eth0 type veth peer name end");
    assert_eq!(watch.poll(), [], "another interface of that name is another one");
}

#[test]
fn what_was_not_heard_is_looked_up() {
    if !may_begin() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    there.run("ip addr add 192.0.2.3/24 dev far");
    here.run("ip route add 198.51.100.0/24 via 192.0.2.2");
    let mut watch = Watch::open(&here, "192.0.2.1");
    watch.resolve("198.51.100.9");
    watch.expect_resolved("198.51.100.9", "192.0.2.2", far);
    // More than can wait, and what matters comes last.
    let mut lines = String::new();
    for n in 0..20_000 {
        writeln!(lines, "route add 10.{}.{}.0/24 via 192.0.2.2", n / 256, n % 256).unwrap();
    }
    lines += "route replace 198.51.100.0/24 via 192.0.2.3\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    here.run(&format!("ip -batch {}", file.path().display()));
    watch.expect_resolved("198.51.100.9", "192.0.2.3", far);
}

#[test]
fn what_is_not_there_cannot_be_watched() {
    if !may_begin() {
        return;
    }
    let missing = Namespace::new().within(|| Neighbours::open("eth9", ip("192.0.2.1")).map(drop));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_has_no_mac_cannot_be_watched() {
    if !may_begin_with_taps() {
        return;
    }
    let here = Namespace::new();
    here.run("ip tuntap add point mode tun");
    let tunnel = here.within(|| Neighbours::open("point", ip("192.0.2.1")).map(drop));
    assert_eq!(tunnel.unwrap_err().kind(), ErrorKind::Unsupported);
}
