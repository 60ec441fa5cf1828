//! Shares of the numbers by which packets wait.

use super::*;
use crate::pool::Pool;

/// Lets packets of a vport wait while they may. Returns their numbers.
fn flood(pended: &mut PendedPackets, pool: &mut Pool, vport: u16) -> Vec<BufferId> {
    let mut numbers = Vec::new();
    loop {
        let number = pended.next_number(|| vport);
        if number == MUST_NOT_WAIT {
            return numbers;
        }
        pended.reserve();
        let packet = pool.take().expect("a buffer");
        assert!(pended.insert(number, packet, vport).is_ok());
        numbers.push(number);
    }
}

#[test]
fn a_flood_gets_half_the_numbers_and_the_next_vport_half_of_the_rest() {
    let (mut pended, mut pool) = (PendedPackets::new(64, 8), Pool::new(64, 0).expect("memory"));
    let flooder = flood(&mut pended, &mut pool, 3);
    let next = flood(&mut pended, &mut pool, 4);
    assert_eq!((flooder.len(), next.len(), pended.len()), (32, 16, 48));
    // Each number leads to its packet once, and is free again.
    for number in flooder.into_iter().chain(next) {
        pool.give(pended.take(number).expect("it waits"));
        assert!(pended.take(number).is_none());
    }
    assert_eq!((pool.free(), pended.len()), (64, 0));
    assert_eq!(flood(&mut pended, &mut pool, 3).len(), 32);
}
