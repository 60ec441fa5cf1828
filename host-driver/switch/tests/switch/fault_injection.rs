//! Links that go, receivers that are slow, guests that want too much. [`Testbed::settle`] holds all of them to one account:
//! frames sent are frames received and frames dropped by reason, exactly.

use std::sync::atomic::Ordering::SeqCst;

use culvert_flow::Port;
use culvert_slowpath::Limits;

use crate::testbed::{Plan, Testbed};

fn some(testbed: &mut Testbed, n: u32) {
    for number in 0..n {
        testbed.send(0, 1, 1000, number, 100);
    }
    testbed.settle();
}

#[test]
fn an_uplink_goes_down_and_comes_back() {
    Plan::worker_sets().for_each(|plan| uplink_goes_down(&plan));
}

fn uplink_goes_down(plan: &Plan) {
    let mut testbed = Testbed::new(plan);
    some(&mut testbed, 100);
    testbed.set_up(false);
    some(&mut testbed, 100);
    assert_eq!((testbed.got(1), testbed.drops()), (100, [("uplink_down", 100)].into()));
    testbed.set_up(true);
    some(&mut testbed, 100);
    assert_eq!((testbed.got(1), testbed.drops()), (200, [("uplink_down", 100)].into()));
}

#[test]
fn a_wire_takes_less_than_the_policy_says() {
    let mut testbed = Testbed::new(&Plan::default());
    testbed.set_longest(600);
    for number in 0..50 {
        testbed.send(0, 1, 1000, number, 100);
        testbed.send(0, 1, 1001, number, 1000);
    }
    testbed.settle();
    assert_eq!((testbed.got(1), testbed.drops()), (50, [("too_long", 50)].into()));
    testbed.set_longest(1614);
    testbed.send(0, 1, 1001, 50, 1000);
    testbed.settle();
    assert_eq!(testbed.got(1), 51);
}

#[test]
fn a_guest_that_does_not_listen_loses_its_own_frames_only() {
    Plan::worker_sets().for_each(|plan| guest_does_not_listen(&plan));
}

fn guest_does_not_listen(plan: &Plan) {
    let mut testbed = Testbed::new(plan);
    let own = testbed.vms[1].from_host.clone();
    own.room.store(0, SeqCst);
    for number in 0..500 {
        testbed.send(0, 1, 1000, number, 100);
        testbed.send(2, 3, 1000, number, 100);
    }
    testbed.settle();
    assert_eq!((testbed.got(1), testbed.got(3)), (0, 500));
    assert_eq!(testbed.drops(), [("ring_full", 500)].into());
    assert_eq!([1, 3].map(|vm| testbed.dropped_at(vm)), [500, 0]);
    own.room.store(1 << 20, SeqCst);
    some(&mut testbed, 10);
    assert_eq!(testbed.got(1), 10);
}

#[test]
fn a_guest_that_goes_is_counted_and_may_come_back() {
    Plan::worker_sets().for_each(|plan| guest_goes(&plan));
}

fn guest_goes(plan: &Plan) {
    let mut testbed = Testbed::new(plan);
    some(&mut testbed, 10);
    let port = Port::Vport(testbed.vport(1));
    testbed.hosts[1].switch.detach(port).unwrap();
    some(&mut testbed, 10);
    assert_eq!((testbed.got(1), testbed.drops()), (10, [("queue_stopped", 10)].into()));
}

#[test]
fn a_flood_of_new_flows_costs_a_neighbour_nothing() {
    Plan::worker_sets().for_each(|plan| flood_of_flows(&plan));
}

fn flood_of_flows(plan: &Plan) {
    let limits = Limits { connections: 1 << 14, per_vport: 2000, ..Limits::default() };
    let mut testbed = Testbed::new(&Plan { limits, ..*plan });
    // Contoso opens more connections than it may have, as fast as it can; Fabrikam talks.
    for number in 0..20 {
        for flow in 0..1000 {
            testbed.send(0, 1, 10_000 + number * 1000 + flow, 0, 60);
        }
        for flow in 0..10 {
            testbed.send(2, 3, 1000 + flow, number.into(), 60);
        }
    }
    testbed.settle();
    assert_eq!(testbed.got(3), 200);
    testbed.assert_order();
    // Over its share, a vport's new connections are refused with the reason; those that it had were served.
    let drops = testbed.drops();
    assert!(drops.keys().all(|reason| ["vport_quota", "upcall_full"].contains(reason)), "{drops:?}");
    assert!(testbed.got(1) >= 1900, "{}", testbed.got(1));
}

#[test]
fn a_worker_that_cannot_keep_up_drops_of_those_who_want_too_much() {
    // Both VMs of host 2 are the second worker's; the first one only passes on what comes for them.
    let mut testbed = Testbed::new(&Plan { workers: 2, idle_vports: 4, buffers: 16_384, ..Plan::default() });
    let round = |testbed: &mut Testbed, number| {
        for flow in 0..100 {
            testbed.send(0, 1, 1000 + flow, number, 100);
        }
        testbed.send(2, 3, 1000, number, 100);
    };
    // Once all flows are known, the slow path has no part in it.
    round(&mut testbed, 0);
    testbed.settle();
    testbed.vms[1].from_host.slow.store(true, SeqCst);
    for number in 1..300 {
        round(&mut testbed, number);
    }
    testbed.settle();
    let drops = testbed.drops();
    assert!(drops.keys().eq(["worker_full"].iter()), "{drops:?}");
    assert_eq!(testbed.got(3), 300);
    let dropped = [0, 1, 2, 3].map(|vm| testbed.dropped_at(vm));
    assert_eq!((dropped[0] + dropped[1], dropped[2], dropped[3]), (drops["worker_full"], 0, 0));
    testbed.assert_order();
}
