//! What changes of routes cost: which next hops are looked up again, and how often.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use culvert_netlink::NeighbourEvent;

use crate::namespace::can_make_namespaces;
use crate::watch::{Watch, ip, mac, network};

/// How often the kernel is asked about 40 hosts of IPv4 and 30 of IPv6, all behind gateways, after a command. `new`: the address
/// that it adds to the interface.
fn look_ups_after(change: &str, new: Option<&str>) -> (u64, u64) {
    let (here, there) = network();
    let far = mac(&there, "far");
    here.run("ip route add 198.51.100.0/24 via 192.0.2.2");
    here.run("ip route add 2001:db8:9::/64 via 2001:db8::2");
    let mut watch = Watch::open(&here, "192.0.2.1");
    for n in 0..40 {
        let host = format!("198.51.100.{n}");
        watch.resolve(&host);
        watch.expect_resolved(&host, "192.0.2.2", far);
    }
    let mut watch6 = Watch::open(&here, "2001:db8::1");
    for n in 0..30 {
        let host = format!("2001:db8:9::{n}");
        watch6.resolve(&host);
        watch6.expect_resolved(&host, "2001:db8::2", far);
    }
    watch.settle();
    watch6.settle();
    let before = (watch.neighbours.look_ups(), watch6.neighbours.look_ups());
    here.run(change);
    for watch in [&mut watch, &mut watch6] {
        if let Some(new) = new {
            watch.expect_interface("the address comes", |interface| interface.holds(ip(new)));
        }
        watch.settle();
    }
    (watch.neighbours.look_ups() - before.0, watch6.neighbours.look_ups() - before.1)
}

#[test]
fn a_route_event_concerns_hosts_of_its_own_family_and_prefix() {
    if !can_make_namespaces() {
        return;
    }
    let after = |change| look_ups_after(change, None);
    assert_eq!(after("ip -6 route add default via 2001:db8::2"), (0, 30));
    assert_eq!(after("ip -6 rule add pref 99 from 2001:db8:5::/64 lookup main"), (0, 30));
    assert_eq!(after("ip route add default via 192.0.2.2"), (40, 0));
    assert_eq!(after("ip rule add pref 99 from 203.0.113.0/24 lookup main"), (40, 0));
    assert_eq!(after("ip route add 198.51.100.4/31 via 192.0.2.2"), (2, 0));
    assert_eq!(after("ip route add 203.0.113.0/24 via 192.0.2.2"), (0, 0));
    let new = "2001:db8:7::1";
    assert_eq!(look_ups_after("ip -6 addr add 2001:db8:7::1/64 dev eth0 nodad", Some(new)).0, 0);
}

#[test]
fn a_flap_of_routes_costs_a_bounded_number_of_look_ups() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let far = mac(&there, "far");
    there.run("ip addr add 192.0.2.3/24 dev far");
    here.run("ip route add 198.51.100.0/24 via 192.0.2.2");
    let mut watch = Watch::open(&here, "192.0.2.1");
    let hosts: Vec<String> = (0..200).map(|n| format!("198.51.100.{n}")).collect();
    for host in &hosts {
        watch.resolve(host);
        watch.expect_resolved(host, "192.0.2.2", far);
    }
    watch.settle();
    let mut lines = String::new();
    for n in 0..10_000 {
        writeln!(lines, "route replace 198.51.100.0/24 via 192.0.2.{}", 2 + n % 2).unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    let (before, now) = (watch.neighbours.look_ups(), watch.now());
    let (path, ended) = (file.path().to_owned(), Arc::new(AtomicBool::new(false)));
    let end = ended.clone();
    let flap = here.spawn(move || {
        let batch = std::process::Command::new("ip").arg("-batch").arg(path).status();
        end.store(true, Ordering::Release);
        assert!(batch.unwrap().success());
    });
    let mut events = Vec::new();
    while !ended.load(Ordering::Acquire) {
        // A caller that is always busy, at a time that stands still: there is one round.
        events.extend(watch.neighbours.poll(now).unwrap());
    }
    flap.wait();
    let look_ups = watch.neighbours.look_ups() - before;
    assert!((1..=32).contains(&look_ups), "{look_ups} look-ups in a round");
    assert!(
        watch.neighbours.fd(now).is_none(),
        "more notifications wake the caller up before the next round"
    );
    watch.settle();
    events.extend(watch.poll());
    for host in hosts.iter().map(|host| ip(host)) {
        let of_host = events.iter().rev().find_map(|event| match event {
            NeighbourEvent::Resolved { remote, via, .. } if *remote == host => Some(*via),
            _ => None,
        });
        assert_eq!(of_host, Some(ip("192.0.2.3")), "the last event about {host}");
    }
}
