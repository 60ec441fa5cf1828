//! The state machine of next hops: when requests go out, and what becomes of held packets.

use super::*;

const HOP: NextHopId = NextHopId { pa: 0, addr: Ipv4Addr::new(192, 168, 1, 1) };
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn resolving(now: u32) -> NextHops<u32> {
    let mut hops = NextHops::default();
    assert_eq!(hops.resolve(HOP, now), (NextHopState::Resolving, Some(Action::SendRequest(HOP, None))));
    hops
}

#[test]
fn held_packets_come_back_in_order() {
    let mut hops = resolving(0);
    assert_eq!(hops.resolve(HOP, 1), (NextHopState::Resolving, None));
    for item in [3, 1, 2] {
        hops.hold(HOP, item).expect("room");
    }
    assert_eq!(hops.learn(HOP, MAC, 5), Some(Action::Resolved(HOP, MAC, vec![3, 1, 2])));
    assert_eq!(hops.resolve(HOP, 6), (NextHopState::Resolved(MAC), None));
    assert_eq!(hops.learn(HOP, MAC, 7), None);
}

#[test]
fn requests_go_out_once_a_second_and_end() {
    let start = u32::MAX - 1500;
    let mut hops = resolving(start);
    hops.hold(HOP, 7).expect("room");
    let mut requests = 0;
    let mut unreachable = None;
    for ms in (0..6000).step_by(100) {
        for action in hops.tick(start.wrapping_add(ms)) {
            match action {
                Action::SendRequest(HOP, None) => requests += 1,
                Action::Unreachable(HOP, held) => unreachable = Some((ms, held)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(requests, MAX_TRIES - 1);
    assert_eq!(unreachable, Some((MAX_TRIES * RETRY_MS, vec![7])));
    assert_eq!(hops.state(HOP), Some(NextHopState::Unreachable));
    assert_eq!(hops.hold(HOP, 8), Err(8));
    assert_eq!(hops.learn(HOP, MAC, 9), Some(Action::Resolved(HOP, MAC, vec![])));
}

#[test]
fn a_hop_holds_no_more_than_its_bound() {
    let mut hops = resolving(0);
    for item in 0..MAX_HELD as u32 {
        hops.hold(HOP, item).expect("room");
    }
    assert_eq!(hops.hold(HOP, 9999), Err(9999));
}

#[test]
fn a_known_mac_is_checked_by_unicast_and_kept_without_an_answer() {
    let mut hops = resolving(0);
    hops.learn(HOP, MAC, 0);
    assert_eq!(hops.tick(REFRESH_MS - 1), vec![]);
    assert_eq!(hops.tick(REFRESH_MS), vec![Action::SendRequest(HOP, Some(MAC))]);
    assert_eq!(hops.tick(REFRESH_MS + RETRY_MS), vec![Action::SendRequest(HOP, Some(MAC))]);
    assert_eq!(hops.tick(REFRESH_MS + 2 * RETRY_MS), vec![Action::SendRequest(HOP, None)]);
    for n in 3..20 {
        hops.tick(REFRESH_MS + n * RETRY_MS);
    }
    assert_eq!(hops.state(HOP), Some(NextHopState::Resolved(MAC)));
    assert_eq!(hops.learn(HOP, OTHER, 1), Some(Action::Resolved(HOP, OTHER, vec![])));
}

#[test]
fn a_moved_address_resolves_its_hops_again() {
    let mut hops = resolving(0);
    hops.learn(HOP, MAC, 0);
    assert_eq!(hops.resolve_again(1, 10), vec![]);
    assert_eq!(hops.resolve_again(0, 10), vec![Action::SendRequest(HOP, None)]);
    assert_eq!(hops.state(HOP), Some(NextHopState::Resolved(MAC)));
}

#[test]
fn unneeded_hops_and_group_macs_are_not_learned() {
    let mut hops: NextHops<u32> = NextHops::default();
    assert_eq!(hops.learn(HOP, MAC, 0), None);
    let mut hops = resolving(0);
    assert_eq!(hops.learn(HOP, MacAddr::BROADCAST, 0), None);
    assert_eq!(hops.state(HOP), Some(NextHopState::Resolving));
}
