//! Shares of a handoff ring.

use super::*;
use crate::pool::Pool;

/// Two workers, and buffers to give.
fn pair() -> ([Handoff; 2], Pool) {
    let notifiers: Vec<Arc<Notifier>> = (0..2).map(|_| Arc::new(Notifier::new().expect("eventfd"))).collect();
    let Ok(both) = handoffs(&notifiers).try_into() else { unreachable!("one for each notifier") };
    (both, Pool::new(2 * CAPACITY, 0).expect("memory"))
}

/// Hands packets off for a vport while there is room. Returns how many.
fn flood(from: &mut Handoff, pool: &mut Pool, charged_vport: u16) -> usize {
    let mut n = 0;
    while let Some(mut packet) = pool.take() {
        assert!(packet.fill(&(n as u32).to_be_bytes()));
        if let Err(packet) = from.push(1, packet, None, charged_vport) {
            pool.give(packet);
            break;
        }
        n += 1;
    }
    n
}

fn drain(to: &mut Handoff, pool: &mut Pool, most: usize) -> Vec<(u16, u32)> {
    let all = std::iter::from_fn(|| to.pop(0)).take(most);
    all.map(|HandoffPacket { packet, charged_vport, .. }| {
        let number = u32::from_be_bytes(*packet.bytes().first_chunk().expect("a number"));
        pool.give(packet);
        (charged_vport, number)
    })
    .collect()
}

#[test]
fn a_flood_gets_half_the_ring_and_the_next_vport_half_of_the_rest() {
    let ([mut from, mut to], mut pool) = pair();
    assert_eq!(flood(&mut from, &mut pool, 7), CAPACITY / 2);
    assert_eq!(flood(&mut from, &mut pool, 8), CAPACITY / 4);
    assert_eq!(flood(&mut from, &mut pool, NO_VPORT), CAPACITY / 8);
    // The first has more than it now could get, and gets nothing.
    assert_eq!(flood(&mut from, &mut pool, 7), 0);
    let all = drain(&mut to, &mut pool, usize::MAX);
    let numbers =
        |charged_vport| all.iter().filter(move |(p, _)| *p == charged_vport).map(|(_, n)| *n as usize);
    assert!(numbers(7).eq(0..CAPACITY / 2) && numbers(8).eq(0..CAPACITY / 4));
    assert!(to.is_empty());
    assert_eq!(pool.free(), 2 * CAPACITY);
}

#[test]
fn packets_taken_out_make_room() {
    let ([mut from, mut to], mut pool) = pair();
    // More than once around the ring.
    for _ in 0..10 {
        let n = flood(&mut from, &mut pool, 3);
        assert_eq!(n, CAPACITY / 2);
        assert_eq!(drain(&mut to, &mut pool, usize::MAX).len(), n);
    }
}

#[test]
fn a_guest_is_polled_while_there_is_room_for_its_packets_at_the_slow_path() {
    let ([mut from, mut to], mut pool) = pair();
    assert!(from.has_room(3));
    flood(&mut from, &mut pool, 3);
    assert!(!from.has_room(3) && from.has_room(4));
    drain(&mut to, &mut pool, ROOM);
    assert!(from.has_room(3));
}

#[test]
fn a_single_worker_hands_off_nothing() {
    let mut alone = Handoff::default();
    let mut pool = Pool::new(1, 0).expect("memory");
    let packet = pool.take().expect("a buffer");
    assert!(alone.is_alone() && alone.is_empty() && alone.has_room(0));
    let back = alone.push(0, packet, None, 0).expect_err("nobody there");
    pool.give(back);
}
