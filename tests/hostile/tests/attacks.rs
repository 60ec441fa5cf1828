//! All attacks on each kind of port, one after the other on one running deployment, beside another tenant's VMs: they lose and
//! wait for nothing, the API answers, the port works again, nothing is left of the attacker, and everything ends when it is told.
#![forbid(unsafe_code)]

use std::time::Instant;

use culvert_hostile::Target;
use culvert_hostile::attacks::ATTACKS;
use culvert_hostile::range::Range;

/// Of the random numbers.
const SEED: u64 = 20_261_130;

/// Makes all attacks on a kind of port; those of `$CULVERT_ATTACKS`, names with commas, if it is set. After one that the deployment
/// did not withstand, the others are made on a new one.
fn withstands(target: Target) {
    let only = std::env::var("CULVERT_ATTACKS").ok();
    let chosen = |name: &str| only.as_ref().is_none_or(|all| all.split(',').any(|one| one == name));
    let mut range = Range::start(target).unwrap();
    let mut failed = Vec::new();
    let mut made = 0;
    for (number, attack) in (1..).zip(ATTACKS) {
        if !attack.on.contains(&target) || !chosen(attack.name) {
            continue;
        }
        let begin = Instant::now();
        let (seen, wrong) =
            range.attack(attack, SEED + number).unwrap_or_else(|end| (String::new(), vec![end]));
        made += 1;
        let time = begin.elapsed().as_secs_f64();
        println!("{target:?} {number:2} {:22} {time:4.1} s: {seen}", attack.name);
        let withstood = wrong.is_empty();
        for what in wrong {
            println!("   FAILED: {what}");
            failed.push(format!("{number} {} ({}): {what}", attack.name, attack.what));
        }
        if !withstood {
            drop(range);
            range = Range::start(target).unwrap();
        }
    }
    failed.extend(range.end().unwrap().into_iter().map(|what| format!("at the end: {what}")));
    assert!(failed.is_empty(), "{target:?}, {} of {made} attacks:\n{}", failed.len(), failed.join("\n"));
    assert!(only.is_some() || made >= 30, "only {made} attacks");
}

#[test]
fn a_vf_withstands_its_vmm() {
    withstands(Target::Vf);
}

#[test]
fn a_vmq_port_withstands_its_vmm() {
    withstands(Target::Vmq);
}

#[test]
fn a_switch_port_withstands_its_vmm() {
    withstands(Target::Switch);
}
