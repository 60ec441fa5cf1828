//! What is allowed arrives, whole and in order, from the first frame on.

use crate::testbed::{Plan, Testbed};

/// With so many, none of these tests sends more than fits the half of the slow path's queue that is for the wire.
const FLOWS: u16 = 200;

fn numbers(testbed: &mut Testbed, from: usize, to: usize, numbers: std::ops::Range<u32>) {
    for number in numbers {
        for flow in 0..FLOWS {
            testbed.send(from, to, 1000 + flow, number, 100);
        }
    }
}

#[test]
fn nothing_is_lost_or_overtaken_while_flows_are_decided() {
    Plan::worker_sets().for_each(|plan| flows_are_decided(&plan));
}

fn flows_are_decided(plan: &Plan) {
    let mut testbed = Testbed::new(plan);
    // Both directions at once: each flow's first frames are decided while the next ones come.
    for n in 0..8 {
        numbers(&mut testbed, 0, 1, n..n + 1);
        numbers(&mut testbed, 1, 0, n..n + 1);
        numbers(&mut testbed, 2, 3, n..n + 1);
    }
    testbed.settle();
    assert_eq!(testbed.drops().len(), 0, "{:?}", testbed.drops());
    assert_eq!((testbed.flows(0), testbed.flows(1), testbed.flows(3)), (200, 200, 200));
    testbed.assert_order();
}

#[test]
fn nothing_is_lost_or_overtaken_while_the_policy_changes() {
    Plan::worker_sets().for_each(|plan| policy_changes(&plan));
}

fn policy_changes(plan: &Plan) {
    let mut testbed = Testbed::new(plan);
    for n in 0..8 {
        numbers(&mut testbed, 0, 1, n * 2..n * 2 + 2);
        testbed.change_policy(n.into());
    }
    testbed.settle();
    assert_eq!(testbed.drops().len(), 0, "{:?}", testbed.drops());
    testbed.assert_order();
}

#[test]
fn a_full_flow_table_costs_no_frame() {
    // Sixty-four records for four hundred in each host.
    Plan::worker_sets().for_each(|plan| table_is_full(&Plan { flows: 64, ..plan }));
}

fn table_is_full(plan: &Plan) {
    let mut testbed = Testbed::new(plan);
    numbers(&mut testbed, 0, 1, 0..10);
    testbed.settle();
    assert_eq!(testbed.drops().len(), 0, "{:?}", testbed.drops());
    assert_eq!(testbed.flows(1), usize::from(FLOWS));
    testbed.assert_order();
}

#[test]
fn few_buffers_make_guests_wait_and_lose_nothing() {
    Plan::worker_sets().for_each(|plan| buffers_are_few(&Plan { buffers: 96, ..plan }));
}

fn buffers_are_few(plan: &Plan) {
    let mut testbed = Testbed::new(plan);
    numbers(&mut testbed, 0, 1, 0..16);
    testbed.settle();
    assert_eq!(testbed.drops().len(), 0, "{:?}", testbed.drops());
    testbed.assert_order();
}

#[test]
fn a_vport_that_moves_to_another_worker_takes_its_connections_along() {
    // The second VM of each host is alone at the second worker; then the first comes there, too, from beside a vport of
    // nobody's, and goes back.
    let mut testbed = Testbed::new(&Plan { workers: 2, idle_vports: 2, ..Plan::default() });
    for n in 0..6 {
        numbers(&mut testbed, 0, 1, n * 4..n * 4 + 4);
        numbers(&mut testbed, 1, 0, n * 4..n * 4 + 4);
        testbed.settle();
        (0..4).for_each(|vm| testbed.reattach(vm));
    }
    assert_eq!(testbed.drops().len(), 0, "{:?}", testbed.drops());
    assert_eq!((testbed.got(0), testbed.got(1)), (4800, 4800));
    testbed.assert_order();
}

#[test]
fn a_vport_that_moves_in_the_middle_of_traffic_loses_nothing_uncounted() {
    let mut testbed = Testbed::new(&Plan { workers: 2, idle_vports: 2, ..Plan::default() });
    for n in 0..4 {
        numbers(&mut testbed, 0, 1, n * 4..n * 4 + 4);
        numbers(&mut testbed, 1, 0, n * 4..n * 4 + 4);
        testbed.reattach(n as usize % 4);
    }
    testbed.settle();
    // From the wire, while the port was away.
    let drops = testbed.drops();
    assert!(drops.keys().all(|reason| *reason == "queue_stopped"), "{drops:?}");
}

#[test]
fn packets_of_a_known_flow_are_nobody_elses_business() {
    Plan::worker_sets().for_each(|plan| known_flows(&plan));
}

fn known_flows(plan: &Plan) {
    let mut testbed = Testbed::new(plan);
    for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        numbers(&mut testbed, from, to, 0..2);
    }
    testbed.settle();
    let before = testbed.punted();
    for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        numbers(&mut testbed, from, to, 2..12);
    }
    testbed.settle();
    assert_eq!(testbed.punted(), before);
    testbed.assert_order();
}
