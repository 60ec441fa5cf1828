//! The routed example: routing between subnets, VMs on one host, a broadcast over both hosts, and failover of an uplink.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use culvert_e2e::accounting::{account, faults};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::routed;
use culvert_e2e::tshark::Capture;
use culvert_e2e::vm::Vm;
use culvert_packet::MacAddr;
use culvert_packet::craft::{self, Ends};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const LOG: usize = 1 << 18;
const BULK: u64 = 4 << 20;
const SQL: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]);

fn v4(subnet: u8, last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, subnet, last))
}

fn start(policy: Value) -> Deployment {
    netns::enter().unwrap();
    Deployment::builder(policy).capture().start().unwrap()
}

/// Number of frames in the capture of a host's uplink 0 that match.
fn on_wire(d: &Deployment, host: usize, filter: &str) -> usize {
    // The board flushes its capture ten times a second.
    std::thread::sleep(Duration::from_millis(300));
    Capture::new(d.capture(host, 0)).count(filter).unwrap()
}

/// Pings and sends a stream between two guests; no frame is lost.
fn talk(d: &Deployment, from: &mut Vm, to: &mut Vm) {
    let address = to.address();
    let ping = from.ping(address, 3, 20).unwrap();
    assert_eq!(ping.received, 3, "{} -> {}: {ping:?}", from.name(), to.name());
    to.listen(5001).unwrap();
    from.send(address, 5001, BULK, 1).unwrap();
    let (sent, received) = (from.transfer(5001, LIMIT).unwrap(), to.transfer(5001, LIMIT).unwrap());
    assert_eq!((received.bytes, &received.sha256), (BULK, &sent.sha256));
    std::thread::sleep(Duration::from_millis(300));
    let faults = faults(&account(from, to, d.dir()).unwrap());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn routed_and_same_host_traffic() {
    let d = start(routed().unwrap());
    let mut sql = d.guest(0, "contoso-sql", "10.1.1.11/24", LOG).unwrap();
    let mut app = d.guest(0, "contoso-app", "10.1.1.13/24", LOG).unwrap();
    let mut backup = d.guest(1, "contoso-backup", "10.1.2.14/24", LOG).unwrap();

    // Two VMs of one host: no frame leaves the board.
    talk(&d, &mut sql, &mut app);
    assert_eq!(on_wire(&d, 0, "vxlan"), 0);

    // From VSID 5001 to 5002 through the distributed router: packets have the destination's VSID and a decremented TTL
    // (RFC 1812, section 5.3.1).
    talk(&d, &mut sql, &mut backup);
    assert_eq!(on_wire(&d, 0, "vxlan && !(vxlan.vni == 5001 || vxlan.vni == 5002)"), 0);
    let there = "vxlan.vni == 5002 && ip.src == 10.1.1.11 && ip.dst == 10.1.2.14";
    assert!(on_wire(&d, 0, there) > 1000);
    assert_eq!(on_wire(&d, 0, &format!("{there} && !(ip.ttl == 63)")), 0);
    for host in [0, 1] {
        assert_eq!(Capture::new(d.capture(host, 0)).problems().unwrap(), Vec::<String>::new());
        assert!(d.drops(host).unwrap().is_empty(), "{:?}", d.drops(host));
    }
}

#[test]
fn a_broadcast_reaches_the_whole_subnet_in_one_copy_on_the_wire() {
    let d = start(routed().unwrap());
    let mut sql = d.guest(0, "contoso-sql", "10.1.1.11/24", 0).unwrap();
    let mut app = d.guest(0, "contoso-app", "10.1.1.13/24", 0).unwrap();
    let mut web = d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap();
    let mut backup = d.guest(1, "contoso-backup", "10.1.2.14/24", 0).unwrap();
    let mut other = d.guest(1, "fabrikam-web", "10.1.1.12/24", 0).unwrap();
    let before = [backup.counters().unwrap().rx_frames, other.counters().unwrap().rx_frames];

    let text = b"to whom it may concern";
    let ends = Ends { src_mac: SQL, dst_mac: MacAddr::BROADCAST, src: v4(1, 11), dst: v4(1, 255) };
    let mut frame = vec![0; 256];
    let len = craft::udp(&mut frame, &ends, 5353, 5353, text).unwrap();
    for _ in 0..3 {
        // The host replicates the first frame, the firmware the others.
        app.await_frame(text).unwrap();
        web.await_frame(text).unwrap();
        sql.frame(&frame[..len]).unwrap();
        app.awaited().unwrap();
        web.awaited().unwrap();
    }
    assert_eq!(on_wire(&d, 0, "vxlan.vni == 5001 && udp.port == 5353"), 3, "one copy of each on the wire");
    let after = [backup.counters().unwrap().rx_frames, other.counters().unwrap().rx_frames];
    assert_eq!(after, before, "the broadcast reached another subnet or tenant");
}

#[test]
fn traffic_fails_over_to_the_other_uplink() {
    let mut policy = routed().unwrap();
    // Contoso's SQL is pinned to uplink 1.
    policy["networkInterfaces"][0]["properties"]["uplink"] = 1.into();
    let d = start(policy);
    let mut sql = d.guest(0, "contoso-sql", "10.1.1.11/24", 0).unwrap();
    let mut web = d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap();
    web.echo().unwrap();
    let to = web.address();
    assert_eq!(sql.ping(to, 3, 20).unwrap().received, 3);
    std::thread::sleep(Duration::from_millis(300));
    let by_one = "vxlan && ip.src == 192.168.1.11";
    assert!(Capture::new(d.capture(0, 1)).count(by_one).unwrap() >= 3, "the pings do not leave by uplink 1");

    sql.start_probe(to, Duration::from_secs(6)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    d.network().set_link(1, 1, false).unwrap();
    let down = Instant::now();
    std::thread::sleep(Duration::from_secs(3).saturating_sub(down.elapsed()));
    let moved = on_wire(&d, 0, by_one);
    d.network().set_link(1, 1, true).unwrap();
    let probe = sql.probe(LIMIT).unwrap();
    assert!(moved > 50, "{moved} packets from the address of uplink 1 have left by uplink 0");
    assert!(probe.longest_outage_ms <= 1000, "{probe:?}");
    assert_eq!(probe.reordered, 0, "{probe:?}");
    assert_eq!(sql.ping(to, 3, 20).unwrap().received, 3);
}
