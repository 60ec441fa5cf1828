//! The switch's bursts against the core.

use culvert_abi::soc::Sizes;
use culvert_lockstep::core::Core;
use culvert_lockstep::{generate, switch};
use proptest::prelude::*;

/// Steps of which most are whole frames of a few flows that follow each other at once: long bursts of hits and misses.
fn long_bursts() -> impl Strategy<Value = Vec<[u8; 3]>> {
    let kind = prop_oneof![12 => 0u8..8, 2 => 8u8..12, 1 => 12u8..16];
    let harm = prop_oneof![9 => 9u8..16, 1 => 0u8..16];
    let step = (kind, harm, 0u8..4, 0u8..4).prop_map(|(kind, harm, a, b)| [harm << 4 | kind, a, b]);
    prop::collection::vec(step, 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_burst_does_what_its_packets_do_one_by_one(
        steps in prop::collection::vec(any::<[u8; 3]>(), 1..150),
        lens in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let sizes = Sizes { pending: 6, ..Sizes::new(6) };
        let trace = generate::trace(&mut Core::new(&sizes), &steps);
        switch::compare_bursts(&trace, &lens, &sizes).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn also_in_long_bursts(steps in long_bursts(), lens in prop::collection::vec(any::<u8>(), 1..20)) {
        let sizes = Sizes { pending: 6, ..Sizes::new(6) };
        let trace = generate::trace(&mut Core::new(&sizes), &steps);
        switch::compare_bursts(&trace, &lens, &sizes).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn workers_do_together_what_one_does_alone(
        steps in prop::collection::vec(any::<[u8; 3]>(), 1..150),
        workers in 1usize..4,
    ) {
        let sizes = Sizes { pending: 1024, ..Sizes::new(10) };
        let trace = generate::trace_with_quota(&mut Core::new(&sizes), &steps, sizes.flows);
        switch::compare_workers(&trace, &sizes, workers).map_err(TestCaseError::fail)?;
    }
}
