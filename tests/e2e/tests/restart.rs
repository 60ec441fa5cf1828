//! Restarts of daemon and firmware under traffic, and the processor time of an idle host.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use culvert_e2e::accounting::{account, faults, missing};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::figure8;
use culvert_e2e::process::cpu_of;
use culvert_e2e::vm::Vm;
use culvert_guest::ProbeReport;
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr};
use serde_json::Value;

/// Frames of a guest's log; more than any of these tests sends.
const LOG: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);
/// More new flows than the upcall quota of a VF.
const NEW_FLOWS: u16 = 400;
/// Longest outage after the firmware was killed.
const OUTAGE_MS: u64 = 2000;

struct Contoso {
    d: Deployment,
    sql: Vm,
    web: Vm,
}

/// Figure 8 with Contoso's guests, which have pinged each other.
fn contoso() -> Contoso {
    netns::enter().unwrap();
    let mut policy = figure8(Encap::Vxlan).unwrap();
    policy["virtualNetworkManager"][0]["properties"]["routerMacAddress"] = "021122334455".into();
    let d = Deployment::builder(policy).start().unwrap();
    let mut sql = d.guest(0, "contoso-sql", "10.1.1.11/24", LOG).unwrap();
    let mut web = d.guest(1, "contoso-web", "10.1.1.12/24", LOG).unwrap();
    web.echo().unwrap();
    let ping = sql.ping(web.address(), 3, 50).unwrap();
    assert_eq!(ping.received, 3, "{ping:?}");
    Contoso { d, sql, web }
}

/// Packets of the busiest flow of a protocol.
fn packets(d: &Deployment, host: usize, protocol: &str) -> u64 {
    let flows = d.cli(host, &["flows"]).unwrap();
    let all = flows.as_array().unwrap();
    all.iter().filter(|f| f["protocol"] == protocol).filter_map(|f| f["packets"].as_u64()).max().unwrap_or(0)
}

#[test]
fn a_transfer_continues_while_the_daemon_restarts_and_adopts_the_flows() {
    let Contoso { mut d, mut sql, mut web } = contoso();
    let to = web.address();
    web.listen(5001).unwrap();
    sql.send(to, 5001, 640 << 20, 7).unwrap();
    sql.start_probe(to, Duration::from_secs(14)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let before = packets(&d, 0, "TCP");
    let upcalls = |d: &Deployment| d.cli(0, &["counters"]).unwrap()["host"]["upcalls"].as_u64().unwrap();
    assert!(before > 0);

    d.stop_daemon(0).unwrap();
    let stopped = Instant::now();
    let first = web.progress(LIMIT).unwrap();
    // Nothing decides new flows now; they do not disturb the others.
    let ends = Ends {
        src_mac: MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]),
        dst_mac: MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]),
        src: sql.address(),
        dst: "10.1.1.99".parse().unwrap(),
    };
    for port in 0..NEW_FLOWS {
        let mut frame = vec![0; 128];
        let len = craft::udp(&mut frame, &ends, 1000, 2000 + port, b"anybody?").unwrap();
        sql.frame(&frame[..len]).unwrap();
    }
    std::thread::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed()));
    let second = web.progress(LIMIT).unwrap();
    assert!(second > first, "the transfer stalls at {first} bytes");
    d.start_daemon(0).unwrap();
    let after = packets(&d, 0, "TCP");
    assert!(after > before, "the flow was created again: {after} packets, {before} before");

    let probe = sql.probe(LIMIT).unwrap();
    let (sent, received) = (sql.transfer(5001, LIMIT).unwrap(), web.transfer(5001, LIMIT).unwrap());
    assert_eq!((received.bytes, &received.sha256), (640 << 20, &sent.sha256));
    // The new daemon gets upcalls for the end of the connection only.
    assert!(upcalls(&d) < 16, "the new daemon got {} upcalls", upcalls(&d));
    // No other packet was lost.
    std::thread::sleep(Duration::from_millis(300));
    let drops = d.drops(0).unwrap();
    assert_eq!(drops.get("queue_stopped"), Some(&NEW_FLOWS.into()), "{drops:?}");
    let faults = faults(&account(&mut sql, &mut web, d.dir()).unwrap());
    assert!(faults.is_empty(), "{faults:#?}; drops {:?}", d.drops(0));
    // The probe never stopped.
    assert_eq!((probe.received, probe.reordered), (probe.sent, 0), "{probe:?}");
    // The new daemon has the connections: replies of a connection that the old one allowed still pass.
    assert_eq!(sql.ping(to, 3, 50).unwrap().received, 3);
}

/// Kills the firmware during a probe of eight seconds, and calls `before` one second earlier.
fn kill_firmware(c: &mut Contoso, before: impl FnOnce(&mut Deployment)) -> ProbeReport {
    let to = c.web.address();
    c.sql.start_probe(to, Duration::from_secs(8)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    before(&mut c.d);
    std::thread::sleep(Duration::from_secs(1));
    let old = c.d.kill_firmware(0).unwrap();
    let probe = c.sql.probe(LIMIT).unwrap();
    assert_ne!(c.d.firmware(0).unwrap(), old);
    probe
}

fn check_outage(probe: &ProbeReport) {
    assert!(probe.longest_outage_ms <= OUTAGE_MS, "{probe:?}");
    assert!(probe.received >= probe.sent - OUTAGE_MS / 10, "{probe:?}");
    assert!(probe.received < probe.sent, "no probe was lost, so the firmware was not killed: {probe:?}");
}

#[test]
fn a_killed_firmware_costs_two_seconds_at_most() {
    let mut c = contoso();
    let probe = kill_firmware(&mut c, |_| {});
    check_outage(&probe);
    let health = c.d.cli(0, &["health"]).unwrap();
    assert_eq!((&health["ok"], &health["firmwareAlive"]), (&true.into(), &true.into()), "{health}");
    let to = c.web.address();
    c.web.listen(5001).unwrap();
    c.sql.send(to, 5001, 4 << 20, 3).unwrap();
    let (sent, received) = (c.sql.transfer(5001, LIMIT).unwrap(), c.web.transfer(5001, LIMIT).unwrap());
    assert_eq!(received.sha256, sent.sha256);
}

#[test]
fn a_killed_firmware_costs_two_seconds_at_most_with_the_daemon_down() {
    let mut c = contoso();
    let probe = kill_firmware(&mut c, |d| d.stop_daemon(0).unwrap());
    check_outage(&probe);
    c.d.start_daemon(0).unwrap();
    let to = c.web.address();
    let ping = c.sql.ping(to, 3, 50).unwrap();
    assert_eq!(ping.received, 3, "{ping:?}");
}

fn drops(d: &Deployment) -> BTreeMap<String, u64> {
    let mut all = d.drops(0).unwrap();
    for (reason, n) in d.drops(1).unwrap() {
        *all.entry(reason).or_default() += n;
    }
    all
}

/// Every packet that was sent was received, or counted as dropped, once. Returns the drops.
fn assert_exact(c: &mut Contoso) -> BTreeMap<String, u64> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let missing = missing(&mut c.sql, &mut c.web, c.d.dir()).unwrap();
        let dropped = drops(&c.d);
        if missing == dropped.values().sum::<u64>() {
            return dropped;
        }
        assert!(Instant::now() < end, "{missing} missing, {dropped:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A datagram of a flow of its own, which nobody answers.
fn datagram(from: &Vm, to: IpAddr, flow: u16) -> Vec<u8> {
    let ends = Ends {
        src_mac: MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]),
        dst_mac: MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]),
        src: from.address(),
        dst: to,
    };
    let mut frame = vec![0; 128];
    let len = craft::udp(&mut frame, &ends, 1000 + flow, 9000, b"anybody?").unwrap();
    frame.truncate(len);
    frame
}

#[test]
fn frames_at_a_killed_daemon_are_counted_once_and_no_new_one_is_decided_without_a_policy() {
    let mut c = contoso();
    let to = c.web.address();
    for round in 0..3 {
        let flow = |n: u16| round * 1000 + n;
        // At the daemon when it is killed: as many as its share.
        c.d.daemon(0).unwrap().pause();
        for n in 0..60 {
            let frame = datagram(&c.sql, to, flow(n));
            c.sql.frame(&frame).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        c.d.kill_daemon(0);
        // New flows all the time while the next one starts.
        let Contoso { d, sql, .. } = &mut c;
        let started = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 100..900 {
                    let frame = datagram(sql, to, flow(n));
                    sql.frame(&frame).unwrap();
                    if started.load(Ordering::Acquire) && n > 200 {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let started_daemon = d.start_daemon(0);
            started.store(true, Ordering::Release);
            started_daemon.unwrap();
        });
        let dropped = assert_exact(&mut c);
        // What it had, and what came while there was none. Nothing died for want of a policy. On a busy machine some of the
        // frames are still in the VF's ring when it is killed.
        let held = 60 * (u64::from(round) + 1);
        let lost = dropped.get("host_restart").copied().unwrap_or(0);
        assert!((1..=held).contains(&lost), "{dropped:?}");
        assert!(
            dropped.keys().all(|reason| reason == "host_restart" || reason == "queue_stopped"),
            "{dropped:?}"
        );
    }
    assert_eq!(c.sql.ping(to, 3, 50).unwrap().received, 3);
}

#[test]
fn a_restarted_firmware_gets_no_packet_before_its_tables() {
    let mut c = contoso();
    let to = c.web.address();
    c.web.listen(5001).unwrap();
    c.sql.send(to, 5001, 100 << 20, 3).unwrap();
    c.sql.start_probe(to, Duration::from_secs(5)).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    for host in [1, 0, 1] {
        c.d.kill_firmware(host).unwrap();
        std::thread::sleep(Duration::from_millis(1200));
    }
    c.sql.probe(LIMIT).unwrap();
    c.sql.transfer(5001, LIMIT).unwrap();
    c.web.transfer(5001, LIMIT).unwrap();
    let dropped = assert_exact(&mut c);
    // What the dead firmware had, and what a guest had no room for in its ring.
    let known = ["firmware_restart", "ring_full"];
    assert!(dropped.keys().all(|reason| known.contains(&reason.as_str())), "{dropped:?}");
}

#[test]
fn a_vport_counts_what_its_ring_has_no_room_for_as_dropped_and_not_as_delivered() {
    let mut c = contoso();
    let counters = |d: &Deployment| d.vport(1, "contoso-web").unwrap().json["counters"].clone();
    let number = |counters: &Value, name: &str| counters[name].as_u64().unwrap();
    let (before, received) = (counters(&c.d), c.web.counters().unwrap().rx_frames);
    let to = c.web.address();
    // One flow, so that the host decides once.
    let frame = datagram(&c.sql, to, 1);
    c.sql.frame(&frame).unwrap();
    c.web.pause().unwrap();
    const FRAMES: u64 = 3000;
    for _ in 1..FRAMES {
        c.sql.frame(&frame).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    c.web.resume().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let now = counters(&c.d);
        let delivered = number(&now, "outPackets") - number(&before, "outPackets");
        let bytes = number(&now, "outBytes") - number(&before, "outBytes");
        let dropped = number(&now, "drops") - number(&before, "drops");
        let got = c.web.counters().unwrap().rx_frames - received;
        if delivered == got && delivered + dropped == FRAMES && bytes == got * frame.len() as u64 {
            assert!(dropped > 500, "only {dropped} frames found no room");
            assert_eq!(c.d.drops(1).unwrap().get("ring_full"), Some(&dropped));
            return;
        }
        assert!(
            Instant::now() < end,
            "{got} received, {delivered} delivered, {bytes} bytes, {dropped} dropped"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_idle_host_uses_under_a_twentieth_of_a_core() {
    let c = contoso();
    std::thread::sleep(Duration::from_secs(1));
    let used = |host: usize| {
        let (board, daemon) = (c.d.board(host).unwrap(), c.d.daemon(host).unwrap());
        [board.cpu(), cpu_of(c.d.firmware(host).unwrap()), daemon.cpu()]
    };
    let (start, before) = (Instant::now(), [used(0), used(1)]);
    std::thread::sleep(Duration::from_secs(6));
    let (elapsed, after) = (start.elapsed(), [used(0), used(1)]);
    for host in [0, 1] {
        let parts: Vec<Duration> = before[host].iter().zip(&after[host]).map(|(b, a)| *a - *b).collect();
        let share = parts.iter().sum::<Duration>().as_secs_f64() / elapsed.as_secs_f64();
        assert!(share < 0.05, "host {}: {share:.3} of a core; board, firmware, daemon: {parts:?}", host + 1);
    }
}

/// An interface that is down or removed costs no processor time.
#[test]
fn a_removed_interface_costs_no_processor_time() {
    let c = contoso();
    for action in [["link", "set", "h1u1", "down"].as_slice(), &["link", "del", "h1u1"]] {
        netns::ip(action).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let board = c.d.board(0).unwrap();
        let before = board.cpu();
        std::thread::sleep(Duration::from_secs(2));
        let used = board.cpu() - before;
        assert!(used < Duration::from_millis(200), "{action:?}: {used:?} of processor time in two seconds");
    }
}
