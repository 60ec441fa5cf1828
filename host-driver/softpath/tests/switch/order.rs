//! What is allowed arrives, whole and in order, from the first frame on.

use crate::world::{Plan, World};

/// With so many, none of these tests sends more than fits the half of the slow path's queue that is for the wire.
const FLOWS: u16 = 200;

fn numbers(world: &mut World, from: usize, to: usize, numbers: std::ops::Range<u32>) {
    for number in numbers {
        for flow in 0..FLOWS {
            world.send(from, to, 1000 + flow, number, 100);
        }
    }
}

#[test]
fn nothing_is_lost_or_overtaken_while_flows_are_decided() {
    Plan::teams().for_each(|plan| flows_are_decided(&plan));
}

fn flows_are_decided(plan: &Plan) {
    let mut world = World::new(plan);
    // Both directions at once: each flow's first frames are decided while the next ones come.
    for n in 0..8 {
        numbers(&mut world, 0, 1, n..n + 1);
        numbers(&mut world, 1, 0, n..n + 1);
        numbers(&mut world, 2, 3, n..n + 1);
    }
    world.settle();
    assert_eq!(world.drops().len(), 0, "{:?}", world.drops());
    assert_eq!((world.flows(0), world.flows(1), world.flows(3)), (200, 200, 200));
    world.assert_order();
}

#[test]
fn nothing_is_lost_or_overtaken_while_the_policy_changes() {
    Plan::teams().for_each(|plan| policy_changes(&plan));
}

fn policy_changes(plan: &Plan) {
    let mut world = World::new(plan);
    for n in 0..8 {
        numbers(&mut world, 0, 1, n * 2..n * 2 + 2);
        world.change_policy(n.into());
    }
    world.settle();
    assert_eq!(world.drops().len(), 0, "{:?}", world.drops());
    world.assert_order();
}

#[test]
fn a_full_flow_table_costs_no_frame() {
    // Sixty-four records for four hundred in each host.
    Plan::teams().for_each(|plan| table_is_full(&Plan { flows: 64, ..plan }));
}

fn table_is_full(plan: &Plan) {
    let mut world = World::new(plan);
    numbers(&mut world, 0, 1, 0..10);
    world.settle();
    assert_eq!(world.drops().len(), 0, "{:?}", world.drops());
    assert_eq!(world.flows(1), usize::from(FLOWS));
    world.assert_order();
}

#[test]
fn few_buffers_make_guests_wait_and_lose_nothing() {
    Plan::teams().for_each(|plan| buffers_are_few(&Plan { buffers: 96, ..plan }));
}

fn buffers_are_few(plan: &Plan) {
    let mut world = World::new(plan);
    numbers(&mut world, 0, 1, 0..16);
    world.settle();
    assert_eq!(world.drops().len(), 0, "{:?}", world.drops());
    world.assert_order();
}

#[test]
fn a_vport_that_moves_to_another_worker_takes_its_connections_along() {
    // The second VM of each host is alone at the second worker; then the first comes there, too, from beside a vport of
    // nobody's, and goes back.
    let mut world = World::new(&Plan { workers: 2, crowd: 2, ..Plan::default() });
    for n in 0..6 {
        numbers(&mut world, 0, 1, n * 4..n * 4 + 4);
        numbers(&mut world, 1, 0, n * 4..n * 4 + 4);
        world.settle();
        (0..4).for_each(|vm| world.reattach(vm));
    }
    assert_eq!(world.drops().len(), 0, "{:?}", world.drops());
    assert_eq!((world.got(0), world.got(1)), (4800, 4800));
    world.assert_order();
}

#[test]
fn a_vport_that_moves_in_the_middle_of_traffic_loses_nothing_uncounted() {
    let mut world = World::new(&Plan { workers: 2, crowd: 2, ..Plan::default() });
    for n in 0..4 {
        numbers(&mut world, 0, 1, n * 4..n * 4 + 4);
        numbers(&mut world, 1, 0, n * 4..n * 4 + 4);
        world.reattach(n as usize % 4);
    }
    world.settle();
    // From the wire, while the port was away.
    let drops = world.drops();
    assert!(drops.keys().all(|reason| *reason == "queue_stopped"), "{drops:?}");
}

#[test]
fn packets_of_a_known_flow_are_nobody_elses_business() {
    Plan::teams().for_each(|plan| known_flows(&plan));
}

fn known_flows(plan: &Plan) {
    let mut world = World::new(plan);
    for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        numbers(&mut world, from, to, 0..2);
    }
    world.settle();
    let before = world.punted();
    for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        numbers(&mut world, from, to, 2..12);
    }
    world.settle();
    assert_eq!(world.punted(), before);
    world.assert_order();
}
