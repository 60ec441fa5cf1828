//! Output of commands: JSON, or text for people.

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
