//! Time on the board: what descriptors carry, how long the firmware is silent, when periodic work is due.

use std::time::{Duration, Instant};

/// Milliseconds since power-on, as descriptors carry them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    pub(super) fn start() -> Self {
        Clock(Instant::now())
    }

    /// Milliseconds until now; wraps after 49 days, as the descriptor's field does.
    pub(super) fn millis(self) -> u32 {
        self.0.elapsed().as_millis() as u32
    }
}

/// A counter that the firmware advances while it lives, and when the board last saw it advance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    count: u32,
    seen: Instant,
}

impl Heartbeat {
    /// That of a firmware that starts now.
    pub(super) fn start() -> Self {
        Heartbeat { count: 0, seen: Instant::now() }
    }

    /// Notes the counter's value.
    pub(super) fn observe(&mut self, count: u32) {
        if count != self.count {
            *self = Heartbeat { count, seen: Instant::now() };
        }
    }

    /// How long the counter has not advanced.
    pub(super) fn silence(self) -> Duration {
        self.seen.elapsed()
    }
}

/// Work that is due once a period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticker {
    period: Duration,
    next: Instant,
}

impl Ticker {
    /// Due at once, then every `period`.
    pub(super) fn new(period: Duration) -> Self {
        Ticker { period, next: Instant::now() }
    }

    /// Whether the work is due; it is due again a period later.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next;
        if due {
            self.next = now + self.period;
        }
        due
    }

    /// Time until the work is due.
    pub(super) fn remaining(self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }
}
