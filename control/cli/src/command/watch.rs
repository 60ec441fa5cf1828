//! Looking again and again: the same view every few seconds, with what has changed since the last time.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use culvert_program::escaped_lines;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::Watch;
use crate::client::Client;
use crate::error::Error;
use crate::output::show;

/// Moves to the top of a terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// A view as it was before, and how many seconds ago.
pub(super) struct Before<'a, T> {
    pub(super) view: &'a T,
    pub(super) seconds: f64,
}

/// Shows a view once, or until the process is interrupted. `text` gets the view and, from the second time on, the one before.
pub(super) fn view<T: DeserializeOwned + Serialize>(
    path: &str,
    watch: Watch,
    client: &Client,
    json: bool,
    text: impl Fn(&T, Option<Before<'_, T>>) -> String,
) -> Result<String, Error> {
    let mut last = (Instant::now(), client.get::<T>(path)?);
    let Some(interval) = watch.interval else { return Ok(show(&last.1, json, |view| text(view, None))) };
    let out = std::io::stdout();
    let clear = if out.is_terminal() && !json { CLEAR } else { "" };
    let print = |view: &T, before: Option<Before<'_, T>>| {
        let text = if json { line(view) } else { text(view, before) };
        let mut out = out.lock();
        out.write_all(format!("{clear}{}", escaped_lines(&text)).as_bytes())
            .and_then(|()| out.flush())
            .is_ok()
    };
    // A reader that closed the pipe does not want the rest.
    let mut wanted = print(&last.1, None);
    while wanted {
        std::thread::sleep(interval);
        match client.get::<T>(path) {
            Ok(view) => {
                let at = Instant::now();
                let seconds = at.duration_since(last.0).as_secs_f64();
                wanted = print(&view, Some(Before { view: &last.1, seconds }));
                last = (at, view);
            }
            // The daemon may be restarting.
            Err(error) => wanted = write!(std::io::stderr(), "{}", escaped_lines(&error.text())).is_ok(),
        }
    }
    Ok(String::new())
}

/// JSON in one line.
fn line(view: &impl Serialize) -> String {
    let mut text = serde_json::to_string(view).unwrap_or_default();
    text.push('\n');
    text
}

/// Events per second between two counts. A counter that began again has no rate.
pub(super) fn rate(now: u64, before: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return "-".to_owned();
    }
    now.checked_sub(before)
        .map_or_else(|| "-".to_owned(), |count| short((count as f64 / seconds).round() as u64))
}

/// A number in at most six characters.
pub(super) fn short(n: u64) -> String {
    if n < 100_000 {
        return n.to_string();
    }
    let mut value = n as f64;
    for unit in ["k", "M", "G", "T", "P", "E"] {
        value /= 1000.0;
        if value < 99.95 {
            return format!("{value:.1}{unit}");
        }
        if value < 999.5 {
            return format!("{value:.0}{unit}");
        }
    }
    n.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_short() {
        for (n, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (12_345_678, "12.3M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(short(n), text);
        }
    }

    #[test]
    fn a_rate_is_of_the_time_between() {
        assert_eq!(rate(300, 100, 2.0), "100");
        assert_eq!(rate(5, 100, 2.0), "-", "the counter began again");
    }
}
