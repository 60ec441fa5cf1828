//! Which uplink serves which address, as links come and go.

use super::*;

fn pa(n: u8) -> LocalPa {
    LocalPa {
        addr: IpAddr::from([192, 168, 1, 10 + n]),
        mac: MacAddr([2, 0, 0, 0, 0, n]),
        uplink: n,
        vlan: None,
    }
}

#[test]
fn an_address_moves_with_its_link_and_comes_back() {
    let mut uplinks = Uplinks::new(2, [true, true]);
    uplinks.set_pas(vec![pa(0), pa(1)]);
    assert_eq!((uplinks.serving(0), uplinks.serving(1), uplinks.serving(2)), (Some(0), Some(1), None));
    assert_eq!(uplinks.set_links([true, false]), vec![1]);
    assert_eq!((uplinks.serving(0), uplinks.serving(1)), (Some(0), Some(0)));
    assert!(uplinks.set_links([true, false]).is_empty());
    assert_eq!(uplinks.set_links([true, true]), vec![1]);
    assert_eq!(uplinks.serving(1), Some(1));
}

#[test]
fn without_any_link_addresses_stay_at_home_and_are_announced_when_one_returns() {
    let mut uplinks = Uplinks::new(2, [true, true]);
    uplinks.set_pas(vec![pa(0), pa(1)]);
    assert!(uplinks.set_links([false, false]).is_empty());
    assert_eq!(uplinks.serving(1), Some(1));
    assert_eq!(uplinks.set_links([true, false]), vec![0, 1]);
    assert_eq!(uplinks.serving(1), Some(0));
}

#[test]
fn addresses_of_a_nic_with_one_port_do_not_move() {
    let mut uplinks = Uplinks::new(1, [true, false]);
    uplinks.set_pas(vec![pa(0)]);
    assert!(uplinks.set_links([false, true]).is_empty());
    assert_eq!(uplinks.serving(0), Some(0));
}
