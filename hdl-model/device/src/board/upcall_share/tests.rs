//! Who may have how many packets at the host.

use super::*;

#[test]
fn a_vport_without_a_vf_has_a_share_of_its_own() {
    let mut shares = UpcallShares::new();
    // A VF of the same number has nothing to do with it.
    for _ in 0..WITHOUT_VF {
        assert!(shares.has_room(3));
        shares.charge_vport(3);
    }
    assert!(!shares.has_room(3));
    assert!(shares.has_room(4));
    assert_eq!(shares.used(3), 0);
    shares.credit(3, 2);
    assert!(shares.has_room(3));
    shares.clear();
    assert!(shares.has_room(3) && shares.without_vf.is_empty());
}

#[test]
fn what_a_vf_has_sent_counts_for_it_whichever_way_it_comes_again() {
    let mut shares = UpcallShares::new();
    shares.charge(7, 3);
    shares.charge(7, 3);
    shares.credit(3, 1);
    // The host has sent it back, and it had no flow again.
    shares.charge_vport(3);
    assert_eq!((shares.used(7), shares.used(3)), (2, 0));
    shares.credit(3, 5);
    assert_eq!(shares.used(7), 0);
}
