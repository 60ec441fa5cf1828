//! Who may start while packages are installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{FORBIDDEN, Policy, script};

const SERVICES: [&str; 2] = ["openvswitch-switch", "ovs-record-hostname"];

/// What the policy says. A shell reads it: while other tests start programs, this one may not be able to start what it has
/// just written.
fn answer(policy: &Path, words: &[&str]) -> Option<i32> {
    assert_eq!(fs::metadata(policy).unwrap().permissions().mode() & 0o777, 0o755);
    Command::new("sh").arg(policy).args(words).status().unwrap().code()
}

/// Puts a policy there, by another process for the same reason.
fn write(policy: &Path, text: &str) {
    let source = policy.with_extension("source");
    fs::write(&source, text).unwrap();
    let installed = Command::new("install").args(["-m", "755"]).arg(&source).arg(policy).status().unwrap();
    assert!(installed.success());
}

#[test]
fn services_are_held_back_for_the_time_of_the_installation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy-rc.d");
    let policy = Policy::forbid(&file, &SERVICES).unwrap();
    // As invoke-rc.d asks, and as deb-systemd-invoke does.
    assert_eq!(answer(&file, &["--quiet", "openvswitch-switch", "start", "2"]), Some(FORBIDDEN));
    assert_eq!(answer(&file, &["ovs-record-hostname.service", "start"]), Some(FORBIDDEN));
    assert_eq!(answer(&file, &["postgresql", "start", "2"]), Some(0));
    drop(policy);
    assert!(!file.exists());
}

#[test]
fn a_policy_that_forbids_anyway_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy-rc.d");
    write(&file, "#!/bin/sh\nexit 101\n");
    drop(Policy::forbid(&file, &SERVICES).unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap(), "#!/bin/sh\nexit 101\n");
}

#[test]
fn a_policy_that_allows_is_not_overruled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy-rc.d");
    write(&file, "#!/bin/sh\nexit 0\n");
    let said = Policy::forbid(&file, &SERVICES).unwrap_err().to_string();
    assert!(said.contains("does not forbid openvswitch-switch to start"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "#!/bin/sh\nexit 0\n");
}

#[test]
fn what_a_killed_installation_left_forbids_nothing_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy-rc.d");
    let mut killed = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    killed.wait().unwrap();
    write(&file, &script(&SERVICES, killed.id()));
    assert_eq!(answer(&file, &["openvswitch-switch", "start"]), Some(0));
    let policy = Policy::forbid(&file, &SERVICES).unwrap();
    assert_eq!(answer(&file, &["openvswitch-switch", "start"]), Some(FORBIDDEN));
    drop(policy);
    assert!(!file.exists());
}
