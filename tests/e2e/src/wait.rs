//! Waiting for a condition, with a limit.

use std::time::{Duration, Instant};

/// Polls `ready` every `interval` until it holds or `limit` passes; returns whether it held.
///
/// # Errors
/// The first error of `ready`.
pub fn poll<E>(
    limit: Duration,
    interval: Duration,
    mut ready: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let end = Instant::now() + limit;
    while !ready()? {
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::sleep(interval);
    }
    Ok(true)
}

/// Waits until `holds`.
///
/// # Panics
/// It does not hold within `limit`.
pub fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let held = poll(limit, Duration::from_millis(20), || Ok::<_, String>(holds()));
    assert!(held == Ok(true), "not {what} within {} s", limit.as_secs());
}
