//! Links that go, receivers that are slow, guests that want too much. [`World::settle`] holds all of them to one account:
//! frames sent are frames received and frames dropped by reason, exactly.

use std::sync::atomic::Ordering::SeqCst;

use culvert_flow::Port;
use culvert_softpath::Limits;

use crate::world::{Plan, World};

fn some(world: &mut World, n: u32) {
    for number in 0..n {
        world.send(0, 1, 1000, number, 100);
    }
    world.settle();
}

#[test]
fn an_uplink_goes_down_and_comes_back() {
    Plan::teams().for_each(|plan| uplink_goes_down(&plan));
}

fn uplink_goes_down(plan: &Plan) {
    let mut world = World::new(plan);
    some(&mut world, 100);
    world.set_up(false);
    some(&mut world, 100);
    assert_eq!((world.got(1), world.drops()), (100, [("uplink_down", 100)].into()));
    world.set_up(true);
    some(&mut world, 100);
    assert_eq!((world.got(1), world.drops()), (200, [("uplink_down", 100)].into()));
}

#[test]
fn a_wire_takes_less_than_the_policy_says() {
    let mut world = World::new(&Plan::default());
    world.set_longest(600);
    for number in 0..50 {
        world.send(0, 1, 1000, number, 100);
        world.send(0, 1, 1001, number, 1000);
    }
    world.settle();
    assert_eq!((world.got(1), world.drops()), (50, [("too_long", 50)].into()));
    world.set_longest(1614);
    world.send(0, 1, 1001, 50, 1000);
    world.settle();
    assert_eq!(world.got(1), 51);
}

#[test]
fn a_guest_that_does_not_listen_loses_its_own_frames_only() {
    Plan::teams().for_each(|plan| guest_does_not_listen(&plan));
}

fn guest_does_not_listen(plan: &Plan) {
    let mut world = World::new(plan);
    let own = world.vms[1].from_host.clone();
    own.room.store(0, SeqCst);
    for number in 0..500 {
        world.send(0, 1, 1000, number, 100);
        world.send(2, 3, 1000, number, 100);
    }
    world.settle();
    assert_eq!((world.got(1), world.got(3)), (0, 500));
    assert_eq!(world.drops(), [("ring_full", 500)].into());
    assert_eq!([1, 3].map(|vm| world.dropped_at(vm)), [500, 0]);
    own.room.store(1 << 20, SeqCst);
    some(&mut world, 10);
    assert_eq!(world.got(1), 10);
}

#[test]
fn a_guest_that_goes_is_counted_and_may_come_back() {
    Plan::teams().for_each(|plan| guest_goes(&plan));
}

fn guest_goes(plan: &Plan) {
    let mut world = World::new(plan);
    some(&mut world, 10);
    let port = Port::Vport(world.vport(1));
    world.hosts[1].switch.detach(port).unwrap();
    some(&mut world, 10);
    assert_eq!((world.got(1), world.drops()), (10, [("queue_stopped", 10)].into()));
}

#[test]
fn a_flood_of_new_flows_costs_a_neighbour_nothing() {
    Plan::teams().for_each(|plan| flood_of_flows(&plan));
}

fn flood_of_flows(plan: &Plan) {
    let limits = Limits { connections: 1 << 14, per_vport: 2000, ..Limits::default() };
    let mut world = World::new(&Plan { limits, ..*plan });
    // Contoso opens more connections than it may have, as fast as it can; Fabrikam talks.
    for number in 0..20 {
        for flow in 0..1000 {
            world.send(0, 1, 10_000 + number * 1000 + flow, 0, 60);
        }
        for flow in 0..10 {
            world.send(2, 3, 1000 + flow, number.into(), 60);
        }
    }
    world.settle();
    assert_eq!(world.got(3), 200);
    world.assert_order();
    // Over its share, a vport's new connections are refused with the reason; those that it had were served.
    let drops = world.drops();
    assert!(drops.keys().all(|reason| ["vport_quota", "upcall_full"].contains(reason)), "{drops:?}");
    assert!(world.got(1) >= 1900, "{}", world.got(1));
}

#[test]
fn a_worker_that_cannot_keep_up_drops_of_those_who_want_too_much() {
    // Both VMs of host 2 are the second worker's; the first one only passes on what comes for them.
    let mut world = World::new(&Plan { workers: 2, crowd: 4, buffers: 16_384, ..Plan::default() });
    let round = |world: &mut World, number| {
        for flow in 0..100 {
            world.send(0, 1, 1000 + flow, number, 100);
        }
        world.send(2, 3, 1000, number, 100);
    };
    // Once all flows are known, the slow path has no part in it.
    round(&mut world, 0);
    world.settle();
    world.vms[1].from_host.slow.store(true, SeqCst);
    for number in 1..300 {
        round(&mut world, number);
    }
    world.settle();
    let drops = world.drops();
    assert!(drops.keys().eq(["worker_full"].iter()), "{drops:?}");
    assert_eq!(world.got(3), 300);
    let dropped = [0, 1, 2, 3].map(|vm| world.dropped_at(vm));
    assert_eq!((dropped[0] + dropped[1], dropped[2], dropped[3]), (drops["worker_full"], 0, 0));
    world.assert_order();
}
