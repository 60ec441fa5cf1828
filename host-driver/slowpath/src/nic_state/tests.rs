//! The life of a NIC: first policy, restarts of its firmware, recoveries.

use super::NicState::{Recovering, RecoveringUnconfigured, Running, Unconfigured};

#[test]
fn a_restart_before_the_first_policy_leaves_the_nic_unconfigured() {
    assert_eq!(Unconfigured.restarted(), RecoveringUnconfigured);
    assert_eq!(RecoveringUnconfigured.restarted(), RecoveringUnconfigured);
    assert_eq!(RecoveringUnconfigured.recovered(), Unconfigured);
    assert_eq!(RecoveringUnconfigured.configured(), Recovering);
}

#[test]
fn a_running_nic_recovers_its_tables() {
    assert_eq!(Unconfigured.configured(), Running);
    assert_eq!(Running.restarted(), Recovering);
    assert_eq!(Recovering.restarted(), Recovering);
    assert_eq!(Recovering.recovered(), Running);
}
