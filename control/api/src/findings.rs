//! What was found in a document: errors and warnings, a bounded number of each, and how many there are.

use crate::{Error, ErrorBody, MAX_LISTED, Warning};

/// Errors and warnings of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What cannot be read: the first [`MAX_LISTED`].
    pub errors: Vec<Error>,
    /// Errors beyond those.
    pub more_errors: usize,
    /// What was left out: the first [`MAX_LISTED`].
    pub warnings: Vec<Warning>,
    /// Warnings beyond those.
    pub more_warnings: usize,
}

impl Findings {
    /// One error.
    pub fn one(error: Error) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }

    /// Adds an error, or counts it. `make` is called only for what is listed.
    pub(crate) fn error(&mut self, make: impl FnOnce() -> Error) {
        if self.errors.len() < MAX_LISTED {
            self.errors.push(make());
        } else {
            self.more_errors += 1;
        }
    }

    /// Adds a warning, or counts it.
    pub(crate) fn warning(&mut self, make: impl FnOnce() -> Warning) {
        if self.warnings.len() < MAX_LISTED {
            self.warnings.push(make());
        } else {
            self.more_warnings += 1;
        }
    }

    /// Names an element, now that its name is known: findings since `marks` have the place `before` or one in it.
    pub(crate) fn rename(&mut self, marks: (usize, usize), before: &str, after: &str) {
        let errors = self.errors.iter_mut().skip(marks.0).filter_map(Error::target_mut);
        let warnings = self.warnings.iter_mut().skip(marks.1).map(|w| &mut w.target);
        for target in errors.chain(warnings) {
            if target.starts_with(before) {
                target.replace_range(..before.len(), after);
            }
        }
    }

    /// How many findings are listed now, for [`Findings::rename`].
    pub(crate) fn marks(&self) -> (usize, usize) {
        (self.errors.len(), self.warnings.len())
    }

    /// The error as an answer shows it, with the warnings.
    pub fn body(&self) -> ErrorBody {
        let details = self.errors.iter().map(ErrorBody::from).collect();
        let mut body = ErrorBody::many("InvalidDocument", "the document", details, self.more_errors);
        body.warnings.clone_from(&self.warnings);
        body.more_warnings = self.more_warnings;
        body
    }
}
