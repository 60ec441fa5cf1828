//! Connection tracking: TCP by RFC 9293, time-outs, bounds.

mod common;

use common::*;
use culvert_flow::HashSecret;
use culvert_packet::tcp::Flags;
use culvert_policy::connection::{Ends, State};
use culvert_policy::{Connections, Decision, Input, Timeouts};

fn opened() -> (culvert_policy::Snapshot, Connections, culvert_policy::ConnectionId) {
    let (s, mut c) = (figure8(), connections());
    let there = ends((11, "10.1.1.11"), (12, "10.1.1.12"));
    forward(ask(&s, &mut c, Input::Vport(SQL), &syn(&there, (1000, 80), Flags::SYN), 0).0);
    let id = c.iter().next().expect("one connection").0;
    (s, c, id)
}

#[test]
fn tcp_opens_and_closes() {
    let (_, mut c, id) = opened();
    let state = |c: &Connections| c.get(id).expect("it is there").state;
    assert_eq!(state(&c), State::Opening);
    c.control(id, true, 0x12, 1);
    assert_eq!(state(&c), State::Established);
    c.control(id, false, 0x11, 2);
    assert_eq!(state(&c), State::Closing(true));
    c.control(id, true, 0x11, 3);
    assert_eq!(state(&c), State::Closed);
    c.control(id, false, 0x02, 4);
    assert_eq!(state(&c), State::Opening, "the ports are used again");
    c.control(id, true, 0x14, 5);
    assert_eq!(state(&c), State::Closed, "RST ends it from any state");
}

#[test]
fn time_outs_follow_the_state() {
    let (_, mut c, id) = opened();
    let t = Timeouts::default();
    assert_eq!(c.expired(t.opening - 1, 10).count(), 0);
    assert_eq!(c.expired(t.opening, 10).count(), 1);
    c.control(id, true, 0x12, 100);
    assert_eq!(c.expired(100 + t.established - 1, 10).count(), 0);
    assert_eq!(c.expired(100 + t.established, 10).count(), 1);
    c.touch(id, t.established);
    assert_eq!(c.expired(100 + t.established, 10).count(), 0, "the NIC saw a packet");
}

#[test]
fn a_full_table_refuses_new_connections_and_keeps_old_ones() {
    let s = figure8();
    let mut c = Connections::new(2, 2, Timeouts::default(), HashSecret([3; 9]));
    let there = ends((11, "10.1.1.11"), (12, "10.1.1.12"));
    for port in [1, 2] {
        forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&there, (port, 53)), 0).0);
    }
    let refused = ask(&s, &mut c, Input::Vport(SQL), &udp(&there, (3, 53)), 0).0;
    assert_eq!(refused, Decision::Drop(culvert_packet::Reason::ConnTableFull));
    forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&there, (1, 53)), 0).0);
    assert_eq!(c.len(), 2);
    let first = c.iter().next().expect("one").0;
    c.remove(first);
    forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&there, (3, 53)), 0).0);
}

#[test]
fn one_vport_cannot_take_the_whole_table() {
    let s = figure8();
    let mut c = Connections::new(10, 1, Timeouts::default(), HashSecret([3; 9]));
    let there = ends((11, "10.1.1.11"), (12, "10.1.1.12"));
    forward(ask(&s, &mut c, Input::Vport(SQL), &udp(&there, (1, 53)), 0).0);
    let refused = ask(&s, &mut c, Input::Vport(SQL), &udp(&there, (2, 53)), 0).0;
    assert_eq!(refused, Decision::Drop(culvert_packet::Reason::VportQuota));
    let other = ends((21, "10.1.1.11"), (22, "10.1.1.12"));
    forward(ask(&s, &mut c, Input::Vport(FABRIKAM_SQL), &udp(&other, (1, 53)), 0).0);
}

#[test]
fn tenants_with_the_same_addresses_have_connections_of_their_own() {
    let (s, mut c) = (figure8(), connections());
    for (vport, a, b) in [(SQL, 11, 12), (FABRIKAM_SQL, 21, 22)] {
        forward(
            ask(&s, &mut c, Input::Vport(vport), &udp(&ends((a, "10.1.1.11"), (b, "10.1.1.12")), (1, 2)), 0)
                .0,
        );
    }
    let found = |rdid| {
        let (first, second) = ((ip("10.1.1.11"), 1), (ip("10.1.1.12"), 2));
        c.find(&Ends { rdid, protocol: 17, first, second }).expect("a connection")
    };
    assert_ne!(found(CONTOSO).0, found(FABRIKAM).0);
    assert!(!found(CONTOSO).1);
}
