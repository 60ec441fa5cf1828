//! Output of commands: JSON, or text for people.

use std::io::{self, Write as _};

use culvert_program::escaped_lines;
use serde::Serialize;

/// Renders a value as JSON, or with `text`.
pub(crate) fn show<T: Serialize>(value: &T, json: bool, text: impl FnOnce(&T) -> String) -> String {
    if json {
        let mut out = serde_json::to_string_pretty(value).unwrap_or_default();
        out.push('\n');
        return out;
    }
    text(value)
}

/// Prints a command's output, without control characters that names in it may have. A reader that closed the pipe does not
/// want the rest, which is no error.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "{}", escaped_lines(text)).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
