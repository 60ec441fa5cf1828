//! Shares of a handoff ring.

use culvert_packet::{Gso, Offload};

use super::*;
use crate::pool::Pool;

/// Places of the ring between two workers.
const RING: usize = MAX_RING;

/// Two workers, and buffers to give.
fn pair() -> ([Handoff; 2], Pool) {
    let notifiers: Vec<Arc<Notifier>> = (0..2).map(|_| Arc::new(Notifier::new().expect("eventfd"))).collect();
    let Ok(both) = handoffs(&notifiers).try_into() else { unreachable!("one for each notifier") };
    (both, Pool::new(2 * RING, 0).expect("memory"))
}

/// Hands packets off for a vport while there is room. Returns how many.
fn flood(from: &mut Handoff, pool: &mut Pool, charged_vport: u16) -> usize {
    flood_with(from, pool, charged_vport, Offload::default())
}

fn flood_with(from: &mut Handoff, pool: &mut Pool, charged_vport: u16, offload: Offload) -> usize {
    let mut n = 0;
    while let Some(mut packet) = pool.take() {
        assert!(packet.fill(&[0; 640]));
        packet.bytes_mut()[..4].copy_from_slice(&(n as u32).to_be_bytes());
        packet.offload = offload;
        if let Err(packet) = from.push(1, packet, None, charged_vport) {
            pool.give(packet);
            break;
        }
        n += 1;
    }
    from.publish();
    n
}

fn drain(to: &mut Handoff, pool: &mut Pool, most: usize) -> Vec<(u16, u32)> {
    let mut all = Vec::new();
    let mut turn = Vec::new();
    while all.len() < most && to.pop_turn(0, &mut turn) {
        for HandoffPacket { packet, charged_vport, .. } in turn.drain(..) {
            all.push((charged_vport, u32::from_be_bytes(*packet.bytes().first_chunk().expect("a number"))));
            pool.give(packet);
        }
    }
    all
}

#[test]
fn a_flood_gets_half_the_ring_and_the_next_vport_half_of_the_rest() {
    let ([mut from, mut to], mut pool) = pair();
    assert_eq!(flood(&mut from, &mut pool, 7), RING / 2);
    assert_eq!(flood(&mut from, &mut pool, 8), RING / 4);
    assert_eq!(flood(&mut from, &mut pool, NO_VPORT), RING / 8);
    // The first has more than it now could get, and gets nothing.
    assert_eq!(flood(&mut from, &mut pool, 7), 0);
    let all = drain(&mut to, &mut pool, usize::MAX);
    let numbers =
        |charged_vport| all.iter().filter(move |(p, _)| *p == charged_vport).map(|(_, n)| *n as usize);
    assert!(numbers(7).eq(0..RING / 2) && numbers(8).eq(0..RING / 4));
    assert!(to.is_empty());
    assert_eq!(pool.free(), 2 * RING);
}

#[test]
fn packets_taken_out_make_room() {
    let ([mut from, mut to], mut pool) = pair();
    // More than once around the ring.
    for _ in 0..10 {
        let n = flood(&mut from, &mut pool, 3);
        assert_eq!(n, RING / 2);
        assert_eq!(drain(&mut to, &mut pool, usize::MAX).len(), n);
    }
}

#[test]
fn a_guest_is_polled_while_there_is_room_for_its_packets_at_the_slow_path() {
    let ([mut from, mut to], mut pool) = pair();
    assert!(from.has_room(3, 2 * RING));
    flood(&mut from, &mut pool, 3);
    assert!(!from.has_room(3, 2 * RING) && from.has_room(4, 2 * RING));
    drain(&mut to, &mut pool, ROOM as usize);
    assert!(from.has_room(3, 2 * RING));
}

#[test]
fn a_single_worker_hands_off_nothing() {
    let mut alone = Handoff::default();
    let mut pool = Pool::new(1, 0).expect("memory");
    let packet = pool.take().expect("a buffer");
    assert!(alone.is_alone() && alone.is_empty() && alone.has_room(0, 1));
    let back = alone.push(0, packet, None, 0).expect_err("nobody there");
    pool.give(back);
}

#[test]
fn a_packet_that_will_be_segmented_takes_as_many_places_as_its_segments() {
    let ([mut from, mut to], mut pool) = pair();
    let offload = Offload { gso: Gso::Udp, mss: 32, ..Offload::default() };
    assert_eq!(flood_with(&mut from, &mut pool, 7, offload), RING / 2 / 20);
    let mut turn = Vec::new();
    // Of 20 each: a turn is 64, and what is done beyond it is done less in the next.
    for expected in [4, 3, 3, 3, 3, 4] {
        assert!(to.pop_turn(0, &mut turn));
        assert_eq!(turn.len(), expected);
        turn.drain(..).for_each(|handed| pool.give(handed.packet));
    }
    // Delivery cost three turns more.
    to.charge(0, 3 * TURN);
    for _ in 0..3 {
        assert!(to.pop_turn(0, &mut turn) && turn.is_empty());
    }
    assert!(to.pop_turn(0, &mut turn) && !turn.is_empty());
    turn.drain(..).for_each(|handed| pool.give(handed.packet));
}

#[test]
fn a_guest_waits_while_its_packets_hold_more_buffers_than_are_free() {
    let ([mut from, mut to], mut pool) = pair();
    let handed = 2 * ROOM as usize;
    for _ in 0..handed {
        let mut packet = pool.take().expect("a buffer");
        assert!(packet.fill(&[0; 64]) && from.push(1, packet, None, 4).is_ok());
    }
    from.publish();
    assert!(from.has_room(4, handed) && !from.has_room(4, handed - 1) && from.has_room(5, 0));
    drain(&mut to, &mut pool, usize::MAX);
    assert!(from.has_room(4, 0));
}

#[test]
fn nothing_is_visible_before_its_burst_is_published() {
    let ([mut from, mut to], mut pool) = pair();
    let packet = pool.take().expect("a buffer");
    assert!(from.push(1, packet, None, 0).is_ok() && to.is_empty());
    from.publish();
    let mut turn = Vec::new();
    to.pop_turn(0, &mut turn);
    assert_eq!(turn.len(), 1);
}

#[test]
fn rings_shrink_with_the_number_of_workers() {
    let all = |workers| (workers - 1) * ring_capacity(workers);
    assert_eq!([2, 5, 9, 64].map(ring_capacity), [MAX_RING, MAX_RING, MIN_RING, MIN_RING]);
    assert!(all(9) <= CAPACITY && all(64) <= 64 * MIN_RING);
}
