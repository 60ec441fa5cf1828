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
    let mut world = World::new(&Plan::default());
    some(&mut world, 100);
    world.wire[0].set_up(false);
    some(&mut world, 100);
    assert_eq!((world.got(1), world.drops()), (100, [("uplink_down", 100)].into()));
    world.wire[0].set_up(true);
    some(&mut world, 100);
    assert_eq!((world.got(1), world.drops()), (200, [("uplink_down", 100)].into()));
}

#[test]
fn a_wire_takes_less_than_the_policy_says() {
    let mut world = World::new(&Plan::default());
    world.wire[0].longest.store(600, SeqCst);
    for number in 0..50 {
        world.send(0, 1, 1000, number, 100);
        world.send(0, 1, 1001, number, 1000);
    }
    world.settle();
    assert_eq!((world.got(1), world.drops()), (50, [("too_long", 50)].into()));
    world.wire[0].longest.store(1614, SeqCst);
    world.send(0, 1, 1001, 50, 1000);
    world.settle();
    assert_eq!(world.got(1), 51);
}

#[test]
fn a_guest_that_does_not_listen_loses_its_own_frames_only() {
    let mut world = World::new(&Plan::default());
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
    let mut world = World::new(&Plan::default());
    some(&mut world, 10);
    let port = Port::Vport(world.vport(1));
    world.hosts[1].switch.detach(port).unwrap();
    some(&mut world, 10);
    assert_eq!((world.got(1), world.drops()), (10, [("queue_stopped", 10)].into()));
}

#[test]
fn a_flood_of_new_flows_costs_a_neighbour_nothing() {
    let limits = Limits { connections: 1 << 14, per_vport: 2000, ..Limits::default() };
    let mut world = World::new(&Plan { limits, ..Plan::default() });
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
    assert!(drops.keys().all(|reason| ["vport_quota", "exception_full"].contains(reason)), "{drops:?}");
    assert!(world.got(1) >= 1900, "{}", world.got(1));
}
