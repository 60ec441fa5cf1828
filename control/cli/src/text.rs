//! Parts of texts for people.

use std::fmt::Write;

use culvert_api::Warning;

/// Adds the warnings of a policy.
pub(crate) fn warnings(out: &mut String, warnings: &[Warning]) {
    warnings.iter().for_each(|w| line(out, &format!("warning: {}: {}", w.target, w.message)));
}

/// Adds a line. Writing to a string cannot fail; the result is dropped for that reason.
pub(crate) fn line(out: &mut String, text: &str) {
    let _ = writeln!(out, "{text}");
}
