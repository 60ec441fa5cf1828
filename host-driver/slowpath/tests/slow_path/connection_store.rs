//! A daemon that ends, in whatever way, and the next one: what becomes of the connections.

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
/// When the first daemon starts, by the system's clock: beyond what 32 bits count.
const START: u64 = 5_000_000_000;

fn closed() -> Arc<AclSet> {
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

/// As everywhere here; nothing may come to vport 11 that it has not asked for.
fn guarded(generation: u32) -> Snapshot {
    let mut s = policy(generation);
    s.vports.get_mut(&VportId(11)).expect("it is there").acls_in = closed();
    s
}

/// What vport 13 answers to [`udp`]`(11, 13)`.
fn answer() -> Vec<u8> {
    let ip = |n| [10, 1, 1, n].into();
    let ends = Ends { src_mac: mac(13), dst_mac: mac(11), src: ip(13), dst: ip(11) };
    let mut frame = [0; 128];
    let len = craft::udp(&mut frame, &ends, 2000, 1000, b"payload").expect("fits");
    frame[..len].to_vec()
}

/// A daemon's slow path without its thread: it keeps its connections in this file.
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

/// Where a first daemon has let vport 11 send to vport 13 at its time 0, and has ended `ran` milliseconds later.
fn begun(ran: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("culvertd.sock.connections");
    let (mut engine, restored) = daemon(&path, &guarded(1), 0, START);
    assert_eq!(restored, Restored::default());
    assert_eq!(dropped(&mut engine, 13, answer(), 0), Some(Reason::AclDeny));
    assert_eq!(dropped(&mut engine, 11, udp(11, 13), 0), None);
    assert_eq!(dropped(&mut engine, 13, answer(), 0), None);
    engine.policy().keep_alive(START + ran);
    (dir, path)
}

#[test]
fn an_answer_passes_whose_question_a_former_daemon_let_through() {
    let (_dir, path) = begun(1000);
    let (mut engine, restored) = daemon(&path, &guarded(1), 70, START + 4000);
    assert_eq!((restored, engine.policy().connections()), (ONE, 1));
    assert_eq!(dropped(&mut engine, 13, answer(), 80), None);
    // And again: the next daemon finds what this one has left.
    drop(engine);
    let (mut engine, restored) = daemon(&path, &guarded(2), 0, START + 8000);
    assert_eq!(restored, ONE);
    assert_eq!(dropped(&mut engine, 13, answer(), 0), None);
    // What has ended is not in the file.
    let [connection] = *engine.policy().expired(Timeouts::default().udp, 9) else { panic!("one is over") };
    engine.policy().remove(connection.connection);
    drop(engine);
    let (mut engine, restored) = daemon(&path, &guarded(2), 0, START + 9000);
    assert_eq!(restored, Restored::default());
    assert_eq!(dropped(&mut engine, 13, answer(), 0), Some(Reason::AclDeny));
}

#[test]
fn the_time_without_a_daemon_is_idle_time() {
    let udp = u64::from(Timeouts::default().udp);
    // Until the daemon ended, the NIC's records may have counted packets that it had not asked for yet.
    let (_dir, path) = begun(udp - 1);
    let (mut engine, restored) = daemon(&path, &guarded(1), 10, START + udp - 1 + udp - 1);
    assert_eq!(restored, ONE);
    assert_eq!(engine.policy().expired(10, 9), []);
    assert_eq!(engine.policy().expired(11, 9).len(), 1, "a millisecond was left");
    let (_dir, path) = begun(udp - 1);
    assert_eq!(daemon(&path, &guarded(1), 10, START + udp - 1 + udp).1, EXPIRED);
}

#[test]
fn daemons_that_are_started_again_and_again_do_not_keep_it_alive() {
    let udp = u64::from(Timeouts::default().udp);
    let (_dir, path) = begun(0);
    let mut clock = START;
    let mut last = ONE;
    while last == ONE {
        clock += udp / 4;
        let (mut engine, restored) = daemon(&path, &guarded(1), 0, clock);
        engine.policy().keep_alive(clock + 1);
        last = restored;
        assert!(clock < START + 3 * udp, "nothing passes, and it lives");
    }
    assert_eq!(last, EXPIRED);
    assert!(clock >= START + udp);
}

#[test]
fn what_the_new_policy_denies_or_gives_to_others_ends() {
    type Change = fn(&mut Snapshot);
    let changes: [(&str, Change); 5] = [
        ("the first side may no longer send", |s| {
            s.vports.get_mut(&VportId(11)).expect("it is there").acls_out = closed();
        }),
        ("the other side may no longer be sent to", |s| {
            s.vports.get_mut(&VportId(13)).expect("it is there").acls_in = closed();
        }),
        ("the owner has become another vm", |s| {
            s.vports.get_mut(&VportId(11)).expect("it is there").mac = MacAddr([2; 6]);
        }),
        ("so has the other", |s| s.vports.get_mut(&VportId(13)).expect("it is there").mac = MacAddr([2; 6])),
        ("the owner is gone", |s| {
            s.vports.remove(&VportId(11));
        }),
    ];
    for (what, change) in changes {
        let (_dir, path) = begun(1000);
        let mut changed = guarded(2);
        change(&mut changed);
        let (mut engine, restored) = daemon(&path, &changed, 0, START + 2000);
        assert_eq!((restored, engine.policy().connections()), (DENIED, 0), "{what}");
        // It is not there either when the policy is what it was.
        drop(engine);
        assert_eq!(daemon(&path, &guarded(3), 0, START + 3000).1, Restored::default(), "{what}");
    }
}

#[test]
fn a_restored_connection_ends_with_the_vport_of_its_other_side() {
    let (_dir, path) = begun(1000);
    let (mut engine, restored) = daemon(&path, &guarded(1), 0, START + 2000);
    assert_eq!(restored, ONE);
    // Nothing of it has come yet.
    let mut changed = guarded(2);
    changed.vports.get_mut(&VportId(13)).expect("it is there").mac = MacAddr([2; 6]);
    engine.policy().set(&Arc::new(changed.clone()));
    assert_eq!(engine.policy().connections(), 0);
    drop(engine);
    assert_eq!(daemon(&path, &changed, 0, START + 3000).1, Restored::default());
}

/// Names the directory of a test that runs once more in a mount namespace.
const SMALL: &str = "CULVERT_SMALL_DIRECTORY";

#[test]
fn where_there_is_no_room_those_that_fit_are_kept_and_all_go_on() {
    if let Some(dir) = std::env::var_os(SMALL) {
        return fill(Path::new(&dir));
    }
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root mounts a small file system");
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let script = "mount -t tmpfs -o size=512k none \"$CULVERT_SMALL_DIRECTORY\" && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script, "sh"]).env(SMALL, dir.path());
    command.arg(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "connection_store::where_there_is_no_room_those_that_fit_are_kept_and_all_go_on"]);
    let said = command.output().expect("unshare is there");
    let stdout = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && stdout.contains("1 passed"), "{stdout}");
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
    // What this one could keep is there for the next.
    let (_, again) = daemon(&path, &guarded(1), 0, START + 2000);
    assert!((1000..=restored.restored).contains(&again.restored), "{again:?}");
}

#[test]
fn one_slow_path_has_the_file_at_a_time() {
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
fn the_thread_takes_them_over_with_its_first_policy() {
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
    nic.punt(meta(vport(13), Reason::Miss, 6), &answer());
    crate::reinjected(&nic, 6);
}
