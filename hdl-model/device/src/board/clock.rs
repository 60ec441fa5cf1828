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

/// A counter that the firmware advances while it lives, and how often the board has seen it unchanged since.
///
/// Silence is counted in looks, not in time: a board that was stopped itself, or is short of processor time, has not
/// looked, and blames the firmware for nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    count: u32,
    unchanged: u32,
}

impl Heartbeat {
    /// That of a firmware that starts now.
    pub(super) fn start() -> Self {
        Heartbeat { count: 0, unchanged: 0 }
    }

    /// Notes the counter's value. Call it once a tick.
    pub(super) fn observe(&mut self, count: u32) {
        let unchanged = if count == self.count { self.unchanged.saturating_add(1) } else { 0 };
        *self = Heartbeat { count, unchanged };
    }

    /// For how many ticks the counter has not advanced.
    pub(super) fn silence(self) -> u32 {
        self.unchanged
    }
}

/// Delays between starts of a firmware that does not live: none, then twice as long each time, up to a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    next: Option<Instant>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(250);
    const LIMIT: Duration = Duration::from_secs(10);

    /// Notes a death or a failed start. Returns how long the next start waits.
    pub(super) fn fail(&mut self) -> Duration {
        let doubled = |n: u32| Self::FIRST.saturating_mul(1 << n.min(16)).min(Self::LIMIT);
        let delay = self.failures.checked_sub(1).map_or(Duration::ZERO, doubled);
        self.failures = self.failures.saturating_add(1);
        self.next = Some(Instant::now() + delay);
        delay
    }

    /// Whether the next start may be now.
    pub(super) fn is_over(&self) -> bool {
        self.next.is_none_or(|next| Instant::now() >= next)
    }

    /// Deaths and failed starts in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The firmware has run for a while: its next death is a first one.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
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

#[cfg(test)]
mod tests;
