//! The filter of system calls that systemd makes of a unit.
//!
//! What the unit does not allow ends the process here, where systemd would only refuse it: the test cannot miss it.

use std::collections::BTreeSet;
use std::process::{Child, Command};

use culvert_e2e::netns::run;
use seccompiler::{TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};

use crate::unit::Unit;

/// Address families of socket(2), by systemd's names.
const FAMILIES: [(&str, u64); 6] =
    [("AF_UNIX", 1), ("AF_INET", 2), ("AF_INET6", 10), ("AF_NETLINK", 16), ("AF_PACKET", 17), ("AF_XDP", 44)];

/// Starts a command behind a unit's filter.
pub(crate) fn spawn_behind(unit: &Unit, mut command: Command) -> Child {
    let mut allowed = BTreeSet::new();
    for name in unit.words("SystemCallFilter") {
        expand(name, &mut allowed);
    }
    allowed.remove("socket");
    let mut rules: Vec<Value> = allowed.into_iter().map(|name| json!({ "syscall": name })).collect();
    // Sets of other architectures have calls that this one does not.
    rules.retain(|rule| compile_from_json(&*filter(std::slice::from_ref(rule)), TargetArch::x86_64).is_ok());
    assert!(rules.len() > 100, "systemd's sets have {} system calls", rules.len());
    for name in unit.words("RestrictAddressFamilies") {
        let (_, family) = FAMILIES.into_iter().find(|(known, _)| *known == name).expect(name);
        let is_it = json!([{ "index": 0, "type": "dword", "op": "eq", "val": family }]);
        rules.push(json!({ "syscall": "socket", "args": is_it }));
    }
    let compiled = compile_from_json(&*filter(&rules), TargetArch::x86_64).expect("a filter");
    // A filter belongs to a thread and to what it starts. It comes with no-new-privileges.
    let spawn = move || {
        apply_filter(&compiled["unit"]).expect("the kernel takes the filter");
        command.spawn().expect("setpriv")
    };
    std::thread::spawn(spawn).join().expect("it is started")
}

fn filter(rules: &[Value]) -> Vec<u8> {
    let all =
        json!({ "unit": { "mismatch_action": "kill_process", "match_action": "allow", "filter": rules } });
    all.to_string().into_bytes()
}

/// Adds a system call, or those of a set of systemd's.
fn expand(name: &str, all: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        all.insert(name.to_owned());
        return;
    }
    let text = run(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", name])).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(' ')).map(str::trim);
    lines.filter(|line| !line.starts_with('#')).for_each(|line| expand(line, all));
}
