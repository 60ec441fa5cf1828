//! A NIC that dies, hangs or cannot start its firmware, and is there again: the host takes it back by itself. Meanwhile the
//! API answers with what was last known, health says what is wrong, and policy changes are accepted.
#![forbid(unsafe_code)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, routed, set_software_port};
use culvert_e2e::vm::Vm;
use culvert_e2e::wait::until;
use culvert_packet::Encap;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
/// Longest time from the return of a NIC until its VMs have their network back.
const RETURN: Duration = Duration::from_secs(2);
/// An answer of the API while the NIC is away: about a second, and the start of a program on a busy machine.
const ANSWER: Duration = Duration::from_secs(3);

fn sql(d: &Deployment) -> Result<Vm, String> {
    let mut sql = d.guest(0, "contoso-sql", "10.1.1.11/24", 0)?;
    sql.echo()?;
    Ok(sql)
}

fn health(d: &Deployment) -> (bool, String) {
    let health = d.cli(0, &["health"]).unwrap();
    (health["ok"] == true, health["problems"].to_string())
}

/// The replies of the API, each in about a second, although the NIC does not answer.
fn check_views(d: &Deployment) {
    for args in [&["nic", "show"][..], &["vport", "list"], &["counters"], &["drops"], &["health"]] {
        let asked = Instant::now();
        let reply = d.cli(0, args).unwrap();
        assert!(asked.elapsed() < ANSWER, "{args:?}: {:?}", asked.elapsed());
        let stale = if args[0] == "vport" { &reply[0]["staleS"] } else { &reply["staleS"] };
        assert!(stale.is_u64() || args[0] == "health", "{args:?}: {reply}");
    }
}

/// Packets that left uplink 0 of host 1, and those that came in at its first vport.
fn counts(d: &Deployment) -> [u64; 2] {
    let counters = d.cli(0, &["counters"]).unwrap();
    let vports = counters["vports"].as_object().unwrap();
    let vports = vports.values().map(|v| v["inPackets"].as_u64().unwrap()).sum();
    [counters["uplinks"]["uplink0"]["outPackets"].as_u64().unwrap(), vports]
}

/// The policy without a network interface.
fn without(mut policy: Value, interface: &str) -> Value {
    let all = policy["networkInterfaces"].as_array_mut().unwrap();
    all.retain(|i| i["resourceId"] != interface);
    policy
}

#[test]
fn a_board_that_was_killed_is_taken_again_within_two_seconds_of_its_return() {
    netns::enter().unwrap();
    let policy = figure8(Encap::Vxlan).unwrap();
    let mut d = Deployment::builder(policy.clone()).start().unwrap();
    let mut web = d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap();
    let first = sql(&d).unwrap();
    let to = first.address();
    web.start_probe(to, Duration::from_secs(10)).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let before = counts(&d);
    assert!(before.iter().all(|n| *n > 0), "{before:?}");

    d.kill_board(0);
    let killed = Instant::now();
    until(LIMIT, "reported", || !health(&d).0);
    assert!(health(&d).1.contains("when it returns"), "{}", health(&d).1);
    check_views(&d);
    // Its VF is gone, and with it the VM's network card.
    drop(first);
    d.change_policy(&without(policy, "fabrikam-sql")).unwrap();
    assert_eq!(d.cli(0, &["health"]).unwrap()["desiredVersion"], 2);

    d.start_board(0).unwrap();
    let down = killed.elapsed();
    let mut second = None;
    until(LIMIT, "the VF back", || {
        second = sql(&d).ok();
        second.is_some()
    });
    let probe = web.probe(LIMIT).unwrap();
    let outage = Duration::from_millis(probe.longest_outage_ms);
    assert!(outage > down && outage <= down + RETURN, "{probe:?}, {down:?} without a board");

    until(LIMIT, "healthy", || health(&d).0);
    let health = d.cli(0, &["health"]).unwrap();
    assert_eq!(health["desiredVersion"], health["appliedVersion"], "{health}");
    assert_eq!(d.vports(0).unwrap().len(), 1, "the policy that came meanwhile is in force");
    let after = counts(&d);
    assert!(before[0] < after[0], "counters go on: {before:?}, {after:?}");
    let ping = second.unwrap().ping(web.address(), 3, 50).unwrap();
    assert_eq!(ping.received, 3, "{ping:?}");
}

#[test]
fn a_board_that_is_stopped_for_a_while_is_used_again() {
    netns::enter().unwrap();
    let d = Deployment::builder(figure8(Encap::Vxlan).unwrap()).start().unwrap();
    let web = d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap();
    let ping = |sql: &mut Vm| sql.ping(web.address(), 3, 50).unwrap().received;
    let mut vm = sql(&d).unwrap();
    assert_eq!(ping(&mut vm), 3);
    drop(vm);
    let firmware = d.firmware(0).unwrap();
    d.board(0).unwrap().pause();
    std::thread::scope(|scope| {
        // From the first moment on, and from several clients at once.
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| d.cli(0, &["nic", "show"]))).collect();
        let asked = Instant::now();
        all.into_iter().for_each(|one| drop(one.join().unwrap().unwrap()));
        assert!(asked.elapsed() < ANSWER, "{:?}", asked.elapsed());
    });
    until(LIMIT, "reported", || !health(&d).0);
    check_views(&d);
    std::thread::sleep(Duration::from_secs(6));
    check_views(&d);
    d.board(0).unwrap().resume();
    until(LIMIT, "healthy", || health(&d).0);
    assert_eq!(d.firmware(0).unwrap(), firmware, "the firmware was not to blame");
    assert_eq!(ping(&mut sql(&d).unwrap()), 3);
}

#[test]
fn a_vm_without_a_vf_keeps_its_port_while_the_board_is_away() {
    netns::enter().unwrap();
    let mut policy = routed().unwrap();
    set_software_port(&mut policy, "contoso-monitor", "tap").unwrap();
    let mut d = Deployment::builder(policy).start().unwrap();
    let web = d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap();
    let mut monitor = d.guest(0, "contoso-monitor", "10.1.1.15/24", 0).unwrap();
    assert_eq!(monitor.ping(web.address(), 3, 50).unwrap().received, 3);
    d.kill_board(0);
    until(LIMIT, "reported", || !health(&d).0);
    assert_eq!(monitor.ping(web.address(), 2, 50).unwrap().received, 0);
    d.start_board(0).unwrap();
    until(LIMIT, "healthy", || health(&d).0);
    until(LIMIT, "its network back", || monitor.ping(web.address(), 1, 50).unwrap().received == 1);
    assert_eq!(monitor.ping(web.address(), 3, 50).unwrap().received, 3);
}

/// The path of a program that is found by its name.
fn program(name: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists()).unwrap()
}

fn point(link: &Path, to: &Path) {
    let new = link.with_extension("new");
    symlink(to, &new).unwrap();
    std::fs::rename(new, link).unwrap();
}

#[test]
fn an_emulator_that_cannot_start_is_tried_more_and_more_rarely_and_named() {
    netns::enter().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let emulator = dir.path().join("emulator");
    let real = program("qemu-system-riscv64");
    point(&emulator, &real);
    let d = Deployment::builder(figure8(Encap::Vxlan).unwrap()).emulator(&emulator).start().unwrap();
    let attempts = |d: &Deployment| {
        let log = std::fs::read_to_string(d.board(0).unwrap().log()).unwrap();
        log.matches("the firmware does not start").count()
    };
    for (broken, word) in [(Path::new("/nonexistent/qemu"), "/emulator"), (&program("false"), "/emulator")] {
        point(&emulator, broken);
        let before = attempts(&d);
        d.kill_firmware(0).unwrap();
        until(LIMIT, "tried", || attempts(&d) > before + 1);
        std::thread::sleep(Duration::from_secs(4));
        assert!(attempts(&d) - before <= 6, "{} attempts", attempts(&d) - before);
        let (ok, problems) = health(&d);
        assert!(!ok && problems.contains(word), "{problems}");
        point(&emulator, &real);
        until(LIMIT, "healthy", || health(&d).0);
        // The next death is a first one again.
        std::thread::sleep(Duration::from_secs(6));
    }
}
