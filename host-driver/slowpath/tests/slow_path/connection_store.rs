//! Connections across restarts of the daemon: which of them the next daemon restores from the connection file.

use std::path::Path;
use std::sync::Arc;

use culvert_offload::{FlowCommand, Upcall};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{MacAddr, Reason, VportId};
use culvert_policy::acl::{Acl, AclSet, Action, PortRange, Rule};
use culvert_policy::{Snapshot, Timeouts};
use culvert_slowpath::{
    ConnectionFile, Engine, Error, HostPolicy, Limits, Policy as _, Restored, Settings, SlowPath,
};

use crate::fake::FakeNic;
use crate::{mac, meta, policy, udp, vport};

const ONE: Restored = Restored { restored: 1, expired: 0, denied: 0, no_room: 0, corrupt: 0 };
const EXPIRED: Restored = Restored { restored: 0, expired: 1, ..ONE };
const DENIED: Restored = Restored { restored: 0, denied: 1, ..ONE };
/// Start of the first daemon by the system's clock: beyond 32 bits.
const START: u64 = 5_000_000_000;

fn deny_all() -> Arc<AclSet> {
    let deny = Rule {
        name: "deny".to_owned(),
        priority: 1,
        action: Action::Deny,
        protocol: None,
        source: Vec::new(),
        destination: Vec::new(),
        source_ports: PortRange::ANY,
        destination_ports: PortRange::ANY,
    };
    Arc::new(AclSet { acls: vec![Acl::new("closed".to_owned(), vec![deny])] })
}

/// The common policy, but vport 11 receives only replies.
fn guarded(generation: u32) -> Snapshot {
    let mut s = policy(generation);
    s.vports.get_mut(&VportId(11)).expect("it is there").acls_in = deny_all();
    s
}

/// The reply of vport 13 to [`udp`]`(11, 13)`.
fn reply() -> Vec<u8> {
    let ip = |n| [10, 1, 1, n].into();
    let ends = Ends { src_mac: mac(13), dst_mac: mac(11), src: ip(13), dst: ip(11) };
    let mut frame = [0; 128];
    let len = craft::udp(&mut frame, &ends, 2000, 1000, b"payload").expect("fits");
    frame[..len].to_vec()
}

/// A daemon's slow path without its thread, which stores its connections in this file.
fn daemon(path: &Path, policy: &Snapshot, now: u32, clock: u64) -> (Engine<HostPolicy>, Restored) {
    let limits = Limits::default();
    let file = ConnectionFile::open(path, limits.connections).expect("no other daemon uses it");
    let mut engine = Engine::new(HostPolicy::new(&limits).without_records().stored_in(file), 2, [true, true]);
    engine.policy().set(&Arc::new(policy.clone()));
    let restored = engine.policy().restore(now, clock);
    (engine, restored)
}

/// Why a frame of a vport is dropped; `None`: it is forwarded.
fn dropped(engine: &mut Engine<HostPolicy>, n: u8, frame: Vec<u8>, now: u32) -> Option<Reason> {
    let first = Upcall::parse(meta(vport(n), Reason::Miss, 5), frame);
    engine.upcall(first, now);
    engine.take_commands().into_iter().find_map(|command| match command {
        FlowCommand::Dropped(_, reason) => Some(reason),
        _ => None,
    })
}

/// A first daemon: it lets vport 11 send to vport 13 at its time 0, and ends `ran` milliseconds later.
fn first_daemon(ran: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("culvertd.sock.connections");
    let (mut engine, restored) = daemon(&path, &guarded(1), 0, START);
    assert_eq!(restored, Restored::default());
    assert_eq!(dropped(&mut engine, 13, reply(), 0), Some(Reason::AclDeny));
    assert_eq!(dropped(&mut engine, 11, udp(11, 13), 0), None);
    assert_eq!(dropped(&mut engine, 13, reply(), 0), None);
    engine.policy().keep_alive(0, START + ran);
    (dir, path)
}

#[test]
fn a_reply_passes_after_a_restart_if_its_request_passed_before() {
    let (_dir, path) = first_daemon(1000);
    let (mut engine, restored) = daemon(&path, &guarded(1), 70, START + 4000);
    assert_eq!((restored, engine.policy().connections()), (ONE, 1));
    assert_eq!(dropped(&mut engine, 13, reply(), 80), None);
    // The second daemon has stored what it restored.
    drop(engine);
    let (mut engine, restored) = daemon(&path, &guarded(2), 0, START + 8000);
    assert_eq!(restored, ONE);
    assert_eq!(dropped(&mut engine, 13, reply(), 0), None);
    // A removed connection is not in the file.
    let [connection] = *engine.policy().expired(Timeouts::default().udp, 9) else { panic!("one is expired") };
    engine.policy().remove(connection.connection);
    drop(engine);
    let (mut engine, restored) = daemon(&path, &guarded(2), 0, START + 9000);
    assert_eq!(restored, Restored::default());
    assert_eq!(dropped(&mut engine, 13, reply(), 0), Some(Reason::AclDeny));
}

#[test]
fn the_time_without_a_daemon_is_idle_time() {
    let udp = u64::from(Timeouts::default().udp);
    // Until the daemon ended, the NIC's records may have counted packets that the daemon had not read yet.
    let (_dir, path) = first_daemon(udp - 1);
    let (mut engine, restored) = daemon(&path, &guarded(1), 10, START + udp - 1 + udp - 1);
    assert_eq!(restored, ONE);
    assert_eq!(engine.policy().expired(10, 9), []);
    assert_eq!(engine.policy().expired(11, 9).len(), 1, "a millisecond was left");
    let (_dir, path) = first_daemon(udp - 1);
    assert_eq!(daemon(&path, &guarded(1), 10, START + udp - 1 + udp).1, EXPIRED);
}

#[test]
fn restarts_alone_do_not_keep_a_connection() {
    let udp = u64::from(Timeouts::default().udp);
    let (_dir, path) = first_daemon(0);
    let mut clock = START;
    let mut last = ONE;
    while last == ONE {
        clock += udp / 4;
        let (mut engine, restored) = daemon(&path, &guarded(1), 0, clock);
        engine.policy().keep_alive(0, clock + 1);
        last = restored;
        assert!(clock < START + 3 * udp, "an unused connection is still there");
    }
    assert_eq!(last, EXPIRED);
    assert!(clock >= START + udp);
}

#[test]
fn a_connection_that_the_new_policy_denies_or_whose_vm_changed_is_not_restored() {
    type Change = fn(&mut Snapshot);
    let changes: [(&str, Change); 5] = [
        ("the initiator may no longer send", |s| {
            s.vports.get_mut(&VportId(11)).expect("it is there").acls_out = deny_all();
        }),
        ("the responder may no longer receive", |s| {
            s.vports.get_mut(&VportId(13)).expect("it is there").acls_in = deny_all();
        }),
        ("the owner is another VM", |s| {
            s.vports.get_mut(&VportId(11)).expect("it is there").mac = MacAddr([2; 6]);
        }),
        ("the responder is another VM", |s| {
            s.vports.get_mut(&VportId(13)).expect("it is there").mac = MacAddr([2; 6]);
        }),
        ("the owner is gone", |s| {
            s.vports.remove(&VportId(11));
        }),
    ];
    for (what, change) in changes {
        let (_dir, path) = first_daemon(1000);
        let mut changed = guarded(2);
        change(&mut changed);
        let (mut engine, restored) = daemon(&path, &changed, 0, START + 2000);
        assert_eq!((restored, engine.policy().connections()), (DENIED, 0), "{what}");
        // Nor is it restored when the policy allows it again.
        drop(engine);
        assert_eq!(daemon(&path, &guarded(3), 0, START + 3000).1, Restored::default(), "{what}");
    }
}

#[test]
fn a_restored_connection_ends_with_the_vport_of_its_responder() {
    let (_dir, path) = first_daemon(1000);
    let (mut engine, restored) = daemon(&path, &guarded(1), 0, START + 2000);
    assert_eq!(restored, ONE);
    // Before any packet of it.
    let mut changed = guarded(2);
    changed.vports.get_mut(&VportId(13)).expect("it is there").mac = MacAddr([2; 6]);
    engine.policy().set(&Arc::new(changed.clone()));
    assert_eq!(engine.policy().connections(), 0);
    drop(engine);
    assert_eq!(daemon(&path, &changed, 0, START + 3000).1, Restored::default());
}

/// Environment variable with the small file system's directory, for the run in a mount namespace.
const DIRECTORY: &str = "CULVERT_SMALL_DIRECTORY";

#[test]
fn on_a_full_file_system_the_connections_that_fit_are_stored() {
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        return fill(Path::new(&dir));
    }
    if !rustix::process::getuid().is_root() {
        return culvert_skip::skip("only root mounts a small file system");
    }
    let dir = tempfile::tempdir().expect("directory");
    let script = "mount -t tmpfs -o size=512k none \"$CULVERT_SMALL_DIRECTORY\" && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script, "sh"]).env(DIRECTORY, dir.path());
    command.arg(std::env::current_exe().expect("this program"));
    command.args(["--exact", "connection_store::on_a_full_file_system_the_connections_that_fit_are_stored"]);
    let output = command.output().expect("unshare is there");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
}

fn fill(dir: &Path) {
    let path = dir.join("culvertd.sock.connections");
    let (mut engine, _) = daemon(&path, &guarded(1), 0, START);
    let all = 20_000;
    for port in 0..all {
        let mut frame = udp(11, 13);
        frame[34..36].copy_from_slice(&(port as u16).to_be_bytes());
        assert_eq!(dropped(&mut engine, 11, frame, 0), None);
    }
    assert_eq!(engine.policy().connections(), all);
    drop(engine);
    let (_, restored) = daemon(&path, &guarded(1), 0, START + 1000);
    assert!((1000..all).contains(&restored.restored), "{restored:?}");
    assert_eq!(restored, Restored { restored: restored.restored, ..ONE });
    // The next daemon restores what this one could store.
    let (_, again) = daemon(&path, &guarded(1), 0, START + 2000);
    assert!((1000..=restored.restored).contains(&again.restored), "{again:?}");
}

#[test]
fn only_one_slow_path_uses_the_file() {
    let dir = tempfile::tempdir().expect("directory");
    let settings = Settings {
        connection_file: Some(dir.path().join("culvertd.sock.connections")),
        ..Settings::default()
    };
    let start = || SlowPath::start(Arc::new(FakeNic::new(vec![])), settings.clone());
    let first = start().expect("started");
    let error = start().err().expect("refused");
    assert!(matches!(error, Error::ConnectionsInUse { .. }), "{error}");
    assert!(error.to_string().contains("--socket"), "{error}");
    drop(first);
    start().expect("started");
}

#[test]
fn the_thread_restores_connections_with_its_first_policy() {
    let dir = tempfile::tempdir().expect("directory");
    let settings = Settings {
        connection_file: Some(dir.path().join("culvertd.sock.connections")),
        ..Settings::default()
    };
    let start = || {
        let nic = FakeNic::new(vec![]);
        let slow_path = SlowPath::start(Arc::new(nic.clone()), settings.clone()).expect("started");
        slow_path.handle().apply(Arc::new(guarded(1))).expect("applied");
        (nic, slow_path)
    };
    let (nic, slow_path) = start();
    nic.punt(meta(vport(11), Reason::Miss, 5), &udp(11, 13));
    crate::reinjected(&nic, 5);
    drop(slow_path);
    let (nic, slow_path) = start();
    assert_eq!(slow_path.handle().status().expect("alive").connections, 1);
    nic.punt(meta(vport(13), Reason::Miss, 6), &reply());
    crate::reinjected(&nic, 6);
}
