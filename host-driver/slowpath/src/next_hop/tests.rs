//! The state machine of next hops: who is asked when, and what becomes of what waits.

use super::*;

const HOP: HopId = HopId { pa: 0, addr: Ipv4Addr::new(192, 168, 1, 1) };
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn wanted(now: u32) -> NextHops<u32> {
    let mut hops = NextHops::default();
    assert_eq!(hops.want(HOP, now), (State::Resolving, Some(Action::Ask(HOP, None))));
    hops
}

#[test]
fn what_waits_goes_on_in_the_order_it_came() {
    let mut hops = wanted(0);
    assert_eq!(hops.want(HOP, 1), (State::Resolving, None));
    for item in [3, 1, 2] {
        hops.hold(HOP, item).expect("room");
    }
    assert_eq!(hops.heard(HOP, MAC, 5), Some(Action::Resolved(HOP, MAC, vec![3, 1, 2])));
    assert_eq!(hops.want(HOP, 6), (State::Resolved(MAC), None));
    assert_eq!(hops.heard(HOP, MAC, 7), None);
}

#[test]
fn questions_go_out_once_a_second_and_end() {
    let start = u32::MAX - 1500;
    let mut hops = wanted(start);
    hops.hold(HOP, 7).expect("room");
    let mut asked = 0;
    let mut silent = None;
    for ms in (0..6000).step_by(100) {
        for action in hops.tick(start.wrapping_add(ms)) {
            match action {
                Action::Ask(HOP, None) => asked += 1,
                Action::Silent(HOP, held) => silent = Some((ms, held)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(asked, TRIES - 1);
    assert_eq!(silent, Some((TRIES * RETRY, vec![7])));
    assert_eq!(hops.state(HOP), Some(State::Silent));
    assert_eq!(hops.hold(HOP, 8), Err(8));
    assert_eq!(hops.heard(HOP, MAC, 9), Some(Action::Resolved(HOP, MAC, vec![])));
}

#[test]
fn a_hop_holds_no_more_than_its_bound() {
    let mut hops = wanted(0);
    for item in 0..HELD as u32 {
        hops.hold(HOP, item).expect("room");
    }
    assert_eq!(hops.hold(HOP, 9999), Err(9999));
}

#[test]
fn a_known_mac_is_asked_again_by_unicast_and_kept_when_silent() {
    let mut hops = wanted(0);
    hops.heard(HOP, MAC, 0);
    assert_eq!(hops.tick(REFRESH - 1), vec![]);
    assert_eq!(hops.tick(REFRESH), vec![Action::Ask(HOP, Some(MAC))]);
    assert_eq!(hops.tick(REFRESH + RETRY), vec![Action::Ask(HOP, Some(MAC))]);
    assert_eq!(hops.tick(REFRESH + 2 * RETRY), vec![Action::Ask(HOP, None)]);
    for n in 3..20 {
        hops.tick(REFRESH + n * RETRY);
    }
    assert_eq!(hops.state(HOP), Some(State::Resolved(MAC)));
    assert_eq!(hops.heard(HOP, OTHER, 1), Some(Action::Resolved(HOP, OTHER, vec![])));
}

#[test]
fn a_moved_address_asks_on_its_new_wire() {
    let mut hops = wanted(0);
    hops.heard(HOP, MAC, 0);
    assert_eq!(hops.moved(1, 10), vec![]);
    assert_eq!(hops.moved(0, 10), vec![Action::Ask(HOP, None)]);
    assert_eq!(hops.state(HOP), Some(State::Resolved(MAC)));
}

#[test]
fn strangers_and_groups_are_not_learned() {
    let mut hops: NextHops<u32> = NextHops::default();
    assert_eq!(hops.heard(HOP, MAC, 0), None);
    let mut hops = wanted(0);
    assert_eq!(hops.heard(HOP, MacAddr::BROADCAST, 0), None);
    assert_eq!(hops.state(HOP), Some(State::Resolving));
}
