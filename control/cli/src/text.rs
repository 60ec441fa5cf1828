//! Parts of texts for people.

use std::fmt::Write;

use culvert_api::Warning;

/// Adds the warnings of a policy, and how many more there are.
pub(crate) fn warnings(out: &mut String, warnings: &[Warning], more: usize) {
    warnings.iter().for_each(|w| line(out, &format!("warning: {}: {}", w.target, w.message)));
    if more > 0 {
        line(out, &format!("warning: and {more} more"));
    }
}

/// Adds a line. Writing to a string cannot fail; the result is dropped for that reason.
pub(crate) fn line(out: &mut String, text: &str) {
    let _ = writeln!(out, "{text}");
}
