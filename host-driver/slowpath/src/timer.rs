//! Time of the slow path: milliseconds in 32 bits that wrap after 49 days.

use std::time::Instant;

/// Milliseconds from `since` to `now`, across the wrap.
pub(crate) fn elapsed_ms(since: u32, now: u32) -> u32 {
    now.wrapping_sub(since)
}

/// The slow path's clock: milliseconds since it was made, wrapping.
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> u32 {
        self.start.elapsed().as_millis() as u32
    }
}

/// A timer that is due once a period has passed since it was last restarted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    restarted: u32,
    period_ms: u32,
}

impl Timer {
    /// A timer that starts at `now`.
    pub(crate) fn new(now: u32, period_ms: u32) -> Self {
        Timer { restarted: now, period_ms }
    }

    /// Whether the period is over; if so, the next one starts at `now`.
    pub(crate) fn fires(&mut self, now: u32) -> bool {
        let is_due = elapsed_ms(self.restarted, now) >= self.period_ms;
        if is_due {
            self.restarted = now;
        }
        is_due
    }

    pub(crate) fn period_ms(&self) -> u32 {
        self.period_ms
    }

    /// Changes the period, of the current round too.
    pub(crate) fn set_period_ms(&mut self, period_ms: u32) {
        self.period_ms = period_ms;
    }
}

/// Timers of the slow path's regular work.
pub(crate) struct Timers {
    pub(crate) aging: Timer,
    pub(crate) sweep: Timer,
    pub(crate) kernel_check: Timer,
}

impl Timers {
    /// Timers of these periods that start at `now`.
    pub(crate) fn new(now: u32, aging: u32, sweep: u32, kernel_check: u32) -> Self {
        let [aging, sweep, kernel_check] = [aging, sweep, kernel_check].map(|period| Timer::new(now, period));
        Timers { aging, sweep, kernel_check }
    }
}

#[cfg(test)]
mod tests;
