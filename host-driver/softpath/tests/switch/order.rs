//! What is allowed arrives, whole and in order, from the first frame on.

use crate::world::{Plan, World};

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
    let mut world = World::new(&Plan::default());
    // Both directions at once: each flow's first frames are decided while the next ones come.
    for n in 0..20 {
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
    let mut world = World::new(&Plan::default());
    for n in 0..8 {
        numbers(&mut world, 0, 1, n * 5..n * 5 + 5);
        world.change_policy(n.into());
    }
    world.settle();
    assert_eq!(world.drops().len(), 0, "{:?}", world.drops());
    world.assert_order();
}

#[test]
fn a_full_flow_table_costs_no_frame() {
    // Sixty-four records for four hundred in each host.
    let mut world = World::new(&Plan { flows: 64, ..Plan::default() });
    numbers(&mut world, 0, 1, 0..10);
    world.settle();
    assert_eq!(world.drops().len(), 0, "{:?}", world.drops());
    assert_eq!(world.flows(1), usize::from(FLOWS));
    world.assert_order();
}

#[test]
fn few_buffers_make_guests_wait_and_lose_nothing() {
    let mut world = World::new(&Plan { buffers: 96, ..Plan::default() });
    numbers(&mut world, 0, 1, 0..20);
    world.settle();
    assert_eq!(world.drops().len(), 0, "{:?}", world.drops());
    world.assert_order();
}
