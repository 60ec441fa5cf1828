//! What a ring holds, and for whom.

use super::*;
use crate::switch::Pool;

/// Two workers, and buffers to give.
fn pair() -> ([Crossing; 2], Pool) {
    let bells: Vec<Arc<Bell>> = (0..2).map(|_| Arc::new(Bell::new().expect("eventfd"))).collect();
    let Ok(both) = crossings(&bells).try_into() else { unreachable!("one for each bell") };
    (both, Pool::new(2 * LENGTH, 0).expect("memory"))
}

/// Gives on a vport's account for as long as there is room. How many that were.
fn flood(from: &mut Crossing, pool: &mut Pool, payer: u16) -> usize {
    let mut n = 0;
    while let Some(mut packet) = pool.take() {
        assert!(packet.fill(&(n as u32).to_be_bytes()));
        if let Err(packet) = from.give(1, packet, None, payer) {
            pool.give(packet);
            break;
        }
        n += 1;
    }
    n
}

fn drain(to: &mut Crossing, pool: &mut Pool, most: usize) -> Vec<(u16, u32)> {
    let all = std::iter::from_fn(|| to.take(0)).take(most);
    all.map(|Passed { packet, payer, .. }| {
        let number = u32::from_be_bytes(*packet.bytes().first_chunk().expect("a number"));
        pool.give(packet);
        (payer, number)
    })
    .collect()
}

#[test]
fn who_floods_gets_half_and_who_comes_next_half_of_the_rest() {
    let ([mut from, mut to], mut pool) = pair();
    assert_eq!(flood(&mut from, &mut pool, 7), LENGTH / 2);
    assert_eq!(flood(&mut from, &mut pool, 8), LENGTH / 4);
    assert_eq!(flood(&mut from, &mut pool, NOBODY), LENGTH / 8);
    // The first has more than it now could get, and gets nothing.
    assert_eq!(flood(&mut from, &mut pool, 7), 0);
    let all = drain(&mut to, &mut pool, usize::MAX);
    let numbers = |payer| all.iter().filter(move |(p, _)| *p == payer).map(|(_, n)| *n as usize);
    assert!(numbers(7).eq(0..LENGTH / 2) && numbers(8).eq(0..LENGTH / 4));
    assert!(to.is_empty());
    assert_eq!(pool.free(), 2 * LENGTH);
}

#[test]
fn what_is_taken_makes_room_for_ever() {
    let ([mut from, mut to], mut pool) = pair();
    // More than once around the ring.
    for _ in 0..10 {
        let n = flood(&mut from, &mut pool, 3);
        assert_eq!(n, LENGTH / 2);
        assert_eq!(drain(&mut to, &mut pool, usize::MAX).len(), n);
    }
}

#[test]
fn a_guest_is_heard_while_there_is_room_for_what_it_has_at_the_slow_path() {
    let ([mut from, mut to], mut pool) = pair();
    assert!(from.has_room(3));
    flood(&mut from, &mut pool, 3);
    assert!(!from.has_room(3) && from.has_room(4));
    drain(&mut to, &mut pool, ROOM);
    assert!(from.has_room(3));
}

#[test]
fn one_that_is_alone_gives_to_nobody() {
    let mut alone = Crossing::default();
    let mut pool = Pool::new(1, 0).expect("memory");
    let packet = pool.take().expect("a buffer");
    assert!(alone.is_alone() && alone.is_empty() && alone.has_room(0));
    let back = alone.give(0, packet, None, 0).expect_err("nobody there");
    pool.give(back);
}
