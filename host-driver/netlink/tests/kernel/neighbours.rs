//! Next hops as the kernel finds them.

use std::fmt::Write as _;
use std::io::ErrorKind;

use culvert_netlink::{Interface, NeighbourEvent, Neighbours};
use culvert_packet::MacAddr;

use crate::namespace::{Namespace, can_make_namespaces, can_use_taps, wait_until};
use crate::watch::{Watch, ip, mac, network};

const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);

#[test]
fn an_interface_is_read() {
    if !can_make_namespaces() {
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
fn a_host_on_the_link_is_its_own_next_hop() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    for (ours, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        let mut watch = Watch::open(&here, ours);
        watch.resolve(other);
        watch.expect_resolved(other, other, far);
        assert_eq!(watch.poll(), [], "nothing is reported twice");
        watch.resolve(other);
        watch.expect_resolved(other, other, far);
    }
}

#[test]
fn a_host_behind_a_gateway_resolves_to_the_gateways_mac() {
    if !can_make_namespaces() {
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
fn the_route_depends_on_the_source_address() {
    if !can_make_namespaces() {
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
fn an_unanswered_neighbour_is_solicited_again() {
    if !can_make_namespaces() {
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
fn a_neighbour_whose_mac_changes_is_resolved_again() {
    if !can_make_namespaces() {
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
    // The neighbour does not announce it, and the kernel confirms a stale entry only when it is used.
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
fn an_announced_mac_is_reported() {
    if !can_make_namespaces() {
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
    if !can_make_namespaces() {
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
        assert_eq!(watch.poll(), [], "the host was forgotten");
    }
}

#[test]
fn next_hop_objects_change_routes() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    there.run("ip addr add 192.0.2.3/24 dev far");
    // The kernel then does not notify of routes whose next hop object changes.
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
fn interface_changes_are_reported() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    let mut watch = Watch::open(&here, "192.0.2.1");
    wait_until("the wire is up", || {
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
fn lost_notifications_cause_a_full_look_up() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    there.run("ip addr add 192.0.2.3/24 dev far");
    here.run("ip route add 198.51.100.0/24 via 192.0.2.2");
    let mut watch = Watch::open(&here, "192.0.2.1");
    watch.resolve("198.51.100.9");
    watch.expect_resolved("198.51.100.9", "192.0.2.2", far);
    // More notifications than the queue holds; the one that matters is the last.
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
fn a_missing_interface_is_refused() {
    if !can_make_namespaces() {
        return;
    }
    let missing = Namespace::new().within(|| Neighbours::open("eth9", ip("192.0.2.1")).map(drop));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_interface_without_a_mac_is_refused() {
    if !can_use_taps() {
        return;
    }
    let here = Namespace::new();
    here.run("ip tuntap add point mode tun");
    let tunnel = here.within(|| Neighbours::open("point", ip("192.0.2.1")).map(drop));
    assert_eq!(tunnel.unwrap_err().kind(), ErrorKind::Unsupported);
}
