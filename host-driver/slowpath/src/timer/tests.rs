//! Timers across the wrap of their clock.

use super::*;

#[test]
fn a_timer_fires_once_a_period_across_the_wrap() {
    let start = u32::MAX - 10;
    let mut timer = Timer::new(start, 100);
    assert!(!timer.fires(start.wrapping_add(99)));
    assert!(timer.fires(start.wrapping_add(100)));
    assert!(!timer.fires(start.wrapping_add(199)));
    timer.set_period_ms(5);
    assert!(timer.fires(start.wrapping_add(199)));
    assert_eq!(timer.period_ms(), 5);
}
