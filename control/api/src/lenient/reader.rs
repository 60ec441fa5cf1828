//! [`Reader`]: what is known while a document is read.

use super::{MAX_RESOURCES, Unknown};
use crate::{Error, Findings};

/// The state of reading a document.
pub(crate) struct Reader<'a> {
    pub(crate) findings: &'a mut Findings,
    pub(crate) unknown: Unknown,
    /// Canonical text. It is of no use after an error, and no longer written then.
    pub(super) out: Vec<u8>,
    /// Place of the value that is read.
    pub(super) target: String,
    pub(super) depth: usize,
    /// The last text, for the name of the resource that it may be.
    pub(super) last_text: String,
    /// Name of the resource that was read last.
    pub(super) last_id: Option<String>,
    /// Resources so far.
    pub(super) resources: usize,
    /// Properties that were left out of the resource, by their path in it.
    pub(super) ignored: Vec<String>,
    /// Length of the resource's place in `target`.
    pub(super) ignored_at: usize,
    /// Name of the next resource where its own text gives none.
    pub(super) default_id: Option<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(findings: &'a mut Findings, unknown: Unknown) -> Self {
        Self {
            findings,
            unknown,
            out: Vec::new(),
            target: String::new(),
            depth: 0,
            last_text: String::new(),
            last_id: None,
            resources: 0,
            ignored: Vec::new(),
            ignored_at: 0,
            default_id: None,
        }
    }

    /// The canonical text of the last resource.
    pub(crate) fn text(&self) -> &[u8] {
        &self.out
    }

    pub(super) fn error_count(&self) -> usize {
        self.findings.errors.len() + self.findings.more_errors
    }

    pub(super) fn write(&mut self, text: &[u8]) {
        if self.findings.errors.is_empty() {
            self.out.extend_from_slice(text);
        }
    }

    pub(super) fn write_json(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        if self.findings.errors.is_empty() {
            // Writing to memory cannot fail.
            let _ = serde_json::to_writer(&mut self.out, value);
        }
    }

    pub(super) fn wrong(&mut self, got: impl FnOnce() -> String, expected: impl FnOnce() -> String) -> bool {
        let target = &self.target;
        self.findings.error(|| Error::WrongType { target: target.clone(), got: got(), expected: expected() });
        false
    }

    /// Counts a resource.
    pub(super) fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.resources += 1;
        if self.resources > MAX_RESOURCES {
            self.findings.errors.truncate(crate::MAX_LISTED - 1);
            self.findings.error(|| Error::TooMany {
                target: "the document".into(),
                what: "resources",
                limit: MAX_RESOURCES,
            });
            return Err(E::custom("too many resources"));
        }
        Ok(())
    }
}
