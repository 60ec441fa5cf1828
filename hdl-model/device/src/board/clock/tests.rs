//! Back-off between starts, and silence that counts only when it was looked at.

use super::*;

#[test]
fn starts_that_fail_become_rarer_up_to_a_limit() {
    let mut backoff = Backoff::default();
    assert!(backoff.is_over());
    let delays: Vec<u64> = (0..10).map(|_| backoff.fail().as_millis() as u64).collect();
    assert_eq!(delays, [0, 250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
    assert!(!backoff.is_over());
    backoff.clear();
    assert_eq!((backoff.fail(), backoff.failures()), (Duration::ZERO, 1));
}

#[test]
fn only_a_heartbeat_that_was_looked_at_and_unchanged_is_silent() {
    let mut heartbeat = Heartbeat::start();
    heartbeat.observe(7);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(heartbeat.silence(), 0);
    heartbeat.observe(7);
    heartbeat.observe(7);
    assert_eq!(heartbeat.silence(), 2);
    heartbeat.observe(8);
    assert_eq!(heartbeat.silence(), 0);
}
