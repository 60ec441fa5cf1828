//! The core against the firmware's logic on this machine: many short traces.

use culvert_abi::command::Op;
use culvert_abi::soc::Sizes;
use culvert_lockstep::core::Core;
use culvert_lockstep::firmware::{FirmwareEngine, Hosted};
use culvert_lockstep::{Engine, compare, generate};
use culvert_packet::Reason;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn equal_bytes_verdicts_and_counters(steps in prop::collection::vec(any::<[u8; 3]>(), 1..150)) {
        let sizes = Sizes { pending: 6, ..Sizes::new(6) };
        let trace = generate::trace(&mut Core::new(&sizes), &steps);
        let mut firmware = FirmwareEngine::new(Hosted::new(&sizes));
        compare(&trace, &mut Core::new(&sizes), &mut firmware).map_err(TestCaseError::fail)?;
    }

    /// The fast path is a shortcut: the pipeline behind it gives the same.
    #[test]
    fn equal_with_and_without_the_fast_path(steps in prop::collection::vec(any::<[u8; 3]>(), 1..150)) {
        let sizes = Sizes { pending: 6, ..Sizes::new(6) };
        let trace = generate::trace(&mut Core::new(&sizes), &steps);
        compare(&trace, &mut Core::new(&sizes), &mut Core::pipeline_only(&sizes)).map_err(TestCaseError::fail)?;
    }

    /// A host that keeps what a punted packet is saves the parsing, and changes nothing.
    #[test]
    fn equal_with_and_without_classified_upcalls(steps in prop::collection::vec(any::<[u8; 3]>(), 1..150)) {
        let sizes = Sizes { pending: 6, ..Sizes::new(6) };
        let trace = generate::trace(&mut Core::new(&sizes), &steps);
        compare(&trace, &mut Core::new(&sizes), &mut Core::with_classified_upcalls(&sizes))
            .map_err(TestCaseError::fail)?;
    }
}

/// The traces cover every verdict and nearly every reason of the core.
#[test]
fn traces_reach_every_verdict() {
    let sizes = Sizes { pending: 6, ..Sizes::new(6) };
    let mut seen = std::collections::BTreeSet::new();
    let mut random = 1u64;
    for _ in 0..200 {
        let steps = generate::random_steps(&mut random, 150);
        let trace = generate::trace(&mut Core::new(&sizes), &steps);
        let mut core = Core::new(&sizes);
        for event in &trace {
            for output in core.run(event).expect("the core always answers") {
                let reason = Reason::from_u8(output.reason).map_or("-", Reason::as_str);
                seen.insert(format!("{:?} {reason}", output.op));
                if output.op == Op::Transmit && output.bytes.get(12..14) == Some(&[8, 6]) {
                    seen.insert(format!("ARP operation {}", output.bytes[21]));
                }
                if output.copies.0.is_some() {
                    seen.insert("copy".to_owned());
                }
                if output.copies.1 {
                    seen.insert("capture".to_owned());
                }
            }
        }
        let dump = core.dump(0).expect("the core always answers");
        for reason in Reason::ALL.iter().filter(|&&r| dump.drops[r as usize] > 0) {
            seen.insert(format!("counted {reason}"));
        }
    }
    let wanted = [
        "Transmit -",
        "ARP operation 2",
        "copy",
        "capture",
        "Upcall miss",
        "Upcall stale",
        "Upcall pending",
        "Upcall fragment",
        "Upcall ttl",
        "Upcall mtu_exceeded",
        "Upcall next_hop_unresolved",
        "Upcall pending_full",
        "Upcall vport_quota",
        "Upcall control",
        "Drop acl_deny",
        "Drop no_vport",
        "Drop vport_down",
        "Drop truncated",
        "Drop bad_version",
        "Drop outer_truncated",
        "Drop outer_ip_checksum",
        "Drop outer_not_ours",
        "Drop unknown_source_pa",
        "Drop vxlan_no_i_flag",
        "Drop gre_flags",
        "Drop gre_no_key",
        "Drop gre_version",
        "Drop gre_protocol",
        "Drop outer_ecn",
        "counted host_restart",
        "counted no_receiver",
        "counted spoofed_mac",
    ];
    let missing: Vec<_> = wanted.iter().filter(|w| !seen.contains(**w)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}\nreached: {seen:#?}");
}
