//! Converts clients' documents to canonical JSON: names and words in any case, numbers and booleans as text, MAC addresses
//! in any notation, single elements in place of lists.
//!
//! A document is read once, from its bytes to canonical text, by the [`crate::Shape`] of what should be there. Whatever
//! does not fit is counted and skipped; no tree of JSON values is made of it. So a document of any form costs little more
//! memory than it has bytes.

mod object;
mod raw;
mod reader;
mod scalar;
mod seen;
mod value;

pub(crate) use reader::Reader;
pub(crate) use seen::Names;

/// Largest nesting of a document: far more than any resource needs.
pub(crate) const MAX_DEPTH: usize = 32;
/// Resources and children that a document may have: four times the vports of a hundred full hosts.
pub(crate) const MAX_RESOURCES: usize = 500_000;
/// Elements of a list of texts, such as an address space.
pub(crate) const MAX_TEXTS: usize = 1_000;

/// What is done with properties that are not known, or not implemented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// The document is refused.
    #[default]
    Refused,
    /// They are left out, with a warning, and listed in the resource.
    Ignored,
}

/// Twelve upper-case hexadecimal digits of a MAC address written with `:`, `-`, `.` or nothing between its digits.
pub fn canonical_mac(text: &str) -> Option<String> {
    let digits: String = text.trim().chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    (digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| digits.to_ascii_uppercase())
}
