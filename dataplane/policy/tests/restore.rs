//! Connections of a former daemon: what is taken back, and what the policy of now says of it.

mod common;

use std::sync::Arc;

use common::*;
use culvert_flow::HashSecret;
use culvert_policy::acl::AclSet;
use culvert_policy::connection::{Connection, Ends, State};
use culvert_policy::snapshot::{Location, Mapping, cell_of};
use culvert_policy::{Connections, Decision, Timeouts, allows};

const UDP: u8 = 17;

fn between(first: &str, second: &str, protocol: u8, port: u16) -> Ends {
    Ends { rdid: CONTOSO, protocol, first: (ip(first), 1000), second: (ip(second), port) }
}

fn udp_of(first: &str, second: &str, last_seen: u32) -> Connection {
    let ends = between(first, second, UDP, 53);
    Connection { ends, owner: SQL, state: State::Timed, last_seen, keys: [None, None] }
}

#[test]
fn a_restored_connection_lets_answers_pass_that_the_lists_do_not() {
    let (mut s, mut c) = (figure8(), connections());
    let closed = Arc::new(AclSet { acls: vec![deny_all()] });
    s.vports.get_mut(&SQL).expect("it is there").acls_in = closed;
    let answer = udp(&ends((12, "10.1.1.12"), (11, "10.1.1.11")), (53, 1000));
    let denied = ask(&s, &mut c, wire(2, 5001), &answer, 5).0;
    assert_eq!(denied, Decision::Drop(culvert_packet::Reason::AclDeny));
    let id = c.restore(&udp_of("10.1.1.11", "10.1.1.12", 0), 5).expect("there is room");
    forward(ask(&s, &mut c, wire(2, 5001), &answer, 7).0);
    let known = c.get(id).expect("it is there");
    assert_eq!(known.last_seen, 7);
    // Both records are made of it: of the answers, and of what they answer.
    assert!(known.keys.iter().all(Option::is_some), "{known:?}");
}

#[test]
fn what_is_left_of_its_time_is_what_it_has() {
    let mut c = connections();
    let timeout = Timeouts::default().udp;
    // The clock has begun anew meanwhile: it was last seen before.
    let now = 1000u32;
    let id = c.restore(&udp_of("10.1.1.11", "10.1.1.12", now.wrapping_sub(timeout / 2)), now).expect("room");
    assert_eq!(c.expired(now + timeout / 2 - 1, 9).count(), 0);
    assert_eq!(c.expired(now + timeout / 2, 9).collect::<Vec<_>>(), [id]);
    let mut c = connections();
    let id = c.restore(&udp_of("10.1.1.11", "10.1.1.12", now.wrapping_sub(timeout - 5)), now).expect("room");
    assert_eq!(c.expired(now + 4, 9).count(), 0);
    assert_eq!(c.expired(now + 5, 9).collect::<Vec<_>>(), [id]);
}

#[test]
fn a_table_is_never_more_than_full_and_knows_each_once() {
    let mut c = Connections::new(2, 1, Timeouts::default(), HashSecret([3; 9]));
    c.restore(&udp_of("10.1.1.11", "10.1.1.12", 0), 0).expect("room");
    let known = udp_of("10.1.1.11", "10.1.1.12", 0);
    let reversed = Connection { ends: known.ends.reversed(), ..known };
    assert_eq!(c.restore(&reversed, 0), None, "the same, from the other end");
    // A vport's share holds for new ones: an established connection is not dropped for it.
    let id = c.restore(&udp_of("10.1.1.11", "10.1.2.14", 0), 0).expect("room");
    assert_eq!(id.place(), 1);
    assert_eq!(c.restore(&udp_of("10.1.1.11", "10.1.2.13", 0), 0), None, "full");
}

#[test]
fn the_policy_of_now_decides() {
    let s = figure8();
    assert!(allows(&s, &between("10.1.1.11", "10.1.1.12", 6, 80)));
    assert!(!allows(&s, &between("10.1.1.11", "10.1.1.12", 6, 23)), "telnet, from here");
    assert!(!allows(&s, &between("10.1.1.12", "10.1.1.11", 6, 23)), "telnet, to here");
    assert!(allows(&s, &between("10.1.1.11", "10.1.1.12", UDP, 23)));
    assert!(allows(&s, &between("10.1.1.11", "10.1.2.13", 6, 80)), "both are here");
    assert!(!allows(&s, &between("10.1.1.12", "10.1.2.14", 6, 80)), "neither is here");
    assert!(!allows(&s, &between("10.1.1.11", "10.1.1.99", 6, 80)), "nobody has that address");
    let other = Ends { rdid: FABRIKAM, ..between("10.1.2.13", "10.1.1.12", 6, 80) };
    assert!(!allows(&s, &other), "the other tenant has no such machine");

    let mut s = figure8();
    s.vports.get_mut(&APP).expect("it is there").acls_in = Arc::new(AclSet { acls: vec![deny_all()] });
    assert!(!allows(&s, &between("10.1.1.11", "10.1.2.13", 6, 80)), "the lists of both count");
    assert!(allows(&s, &between("10.1.2.13", "10.1.1.11", 6, 80)));
}

#[test]
fn both_ends_are_found_by_their_addresses() {
    let mut s = figure8();
    assert_eq!(s.local_ends(&between("10.1.1.11", "10.1.2.13", 6, 80)), [Some(SQL), Some(APP)]);
    assert_eq!(s.local_ends(&between("10.1.1.12", "10.1.1.11", 6, 80)), [None, Some(SQL)]);
    let ca = ip("10.1.2.13");
    s.mappings.insert(Mapping {
        rdid: CONTOSO,
        ca,
        mac: mac(13),
        vsid: 5002,
        location: Location::Remote { peer: 2, tunnels: [7, 8] },
        generation: 1,
        cell: cell_of(CONTOSO, ca),
    });
    assert_eq!(s.local_ends(&between("10.1.1.11", "10.1.2.13", 6, 80)), [Some(SQL), None], "it has moved");
}
