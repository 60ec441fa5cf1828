//! Errors of documents, and the form of every error in the API.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// Errors, and warnings, that an answer lists. The rest is counted.
pub const MAX_LISTED: usize = 100;

/// A document that cannot be read as resources. Every variant names the place and the value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Not JSON.
    #[error("the document is not JSON: {detail}")]
    NotJson {
        /// The parser's message, with line and column.
        detail: String,
    },
    /// A property that does not exist here, or does nothing yet.
    #[error("{target} has the property \"{name}\", which is {what}")]
    UnknownProperty {
        /// The object's place.
        target: String,
        /// As written.
        name: String,
        /// `not known here` or `not implemented`.
        what: &'static str,
        /// The known name that it resembles.
        near: Option<String>,
    },
    /// More of something than a document may have.
    #[error("{target} has more than {limit} {what}")]
    TooMany {
        /// Its place.
        target: String,
        /// The things.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Neither an object of collections nor a list of resources.
    #[error("a policy is an object of collections or a list of resources, not {got}")]
    NotABundle {
        /// What it is.
        got: String,
    },
    /// A collection that does not exist.
    #[error("there is no collection \"{name}\"")]
    UnknownCollection {
        /// As written.
        name: String,
        /// The names of the collections.
        known: String,
        /// The one that it resembles.
        near: Option<String>,
    },
    /// A path that does not name a resource.
    #[error("\"{path}\" is not the path of a resource")]
    BadPath {
        /// As written.
        path: String,
    },
    /// A resource without a name.
    #[error("{target} has no resourceId")]
    MissingId {
        /// Its place.
        target: String,
    },
    /// A name that cannot be part of a path.
    #[error("{target}: the resourceId \"{value}\" cannot be part of a path")]
    BadId {
        /// Its place.
        target: String,
        /// As written.
        value: String,
    },
    /// Two resources of one name in a collection.
    #[error("{target} occurs twice")]
    DuplicateId {
        /// Its place.
        target: String,
    },
    /// A property twice, in the same or another case.
    #[error("{target} has the property \"{name}\" twice")]
    DuplicateProperty {
        /// The object's place.
        target: String,
        /// Canonical name.
        name: String,
    },
    /// A value of the wrong kind.
    #[error("{target} is {got}, not {expected}")]
    WrongType {
        /// Its place.
        target: String,
        /// What it is.
        got: String,
        /// What it should be.
        expected: String,
    },
}

impl Error {
    /// Error code for programs; does not change between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotJson { .. } => "NotJson",
            Error::UnknownProperty { .. } => "UnknownProperty",
            Error::TooMany { .. } => "TooMany",
            Error::NotABundle { .. } => "NotABundle",
            Error::UnknownCollection { .. } => "UnknownCollection",
            Error::BadPath { .. } => "BadPath",
            Error::MissingId { .. } => "MissingId",
            Error::BadId { .. } => "BadId",
            Error::DuplicateId { .. } => "DuplicateId",
            Error::DuplicateProperty { .. } => "DuplicateProperty",
            Error::WrongType { .. } => "WrongType",
        }
    }

    /// The place in the document.
    pub fn target(&self) -> &str {
        match self {
            Error::NotJson { .. } | Error::NotABundle { .. } => "",
            Error::UnknownCollection { name, .. } => name,
            Error::BadPath { path } => path,
            Error::MissingId { target }
            | Error::BadId { target, .. }
            | Error::DuplicateId { target }
            | Error::DuplicateProperty { target, .. }
            | Error::UnknownProperty { target, .. }
            | Error::TooMany { target, .. }
            | Error::WrongType { target, .. } => target,
        }
    }

    /// The place in the document, to correct it when more is known.
    pub(crate) fn target_mut(&mut self) -> Option<&mut String> {
        match self {
            Error::MissingId { target }
            | Error::BadId { target, .. }
            | Error::DuplicateId { target }
            | Error::DuplicateProperty { target, .. }
            | Error::UnknownProperty { target, .. }
            | Error::TooMany { target, .. }
            | Error::WrongType { target, .. } => Some(target),
            Error::NotJson { .. }
            | Error::NotABundle { .. }
            | Error::UnknownCollection { .. }
            | Error::BadPath { .. } => None,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Error::NotJson { .. } => "correct the document at that line and column".into(),
            Error::NotABundle { .. } => {
                "write {\"virtualNetworks\": [...], \"networkInterfaces\": [...], ...}".into()
            }
            Error::UnknownCollection { near: Some(near), .. } => format!("write {near}"),
            Error::UnknownCollection { known, .. } => format!("use one of {known}"),
            Error::UnknownProperty { near: Some(near), .. } => format!("write {near}"),
            Error::UnknownProperty { .. } => {
                "remove it, or have it left out with a warning: --lenient, or the header Culvert-Lenient: true".into()
            }
            Error::TooMany { .. } => "divide the document, and apply its parts with mode=merge".into(),
            Error::BadPath { .. } => {
                "write /collection/id or /collection/id/child/id, for example /virtualNetworks/contoso/subnets/sql"
                    .into()
            }
            Error::MissingId { .. } => "give it a resourceId, unique in its collection".into(),
            Error::BadId { .. } => "use letters, digits, '-', '_', '.', ':' and at most 128 of them".into(),
            Error::DuplicateId { .. } => "remove one of the two or rename it".into(),
            Error::DuplicateProperty { .. } => "keep one of the two".into(),
            Error::WrongType { expected, .. } => format!("write {expected}"),
        }
    }
}

/// The parser's error for an answer.
pub fn json_error(error: &serde_json::Error) -> Error {
    Error::NotJson { detail: short_detail(&error.to_string()) }
}

fn short_detail(text: &str) -> String {
    // It may repeat the document's text; line and column are at its end.
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= 200 {
        return text.to_owned();
    }
    let (first, last) = (chars.iter().take(100), chars.iter().skip(chars.len() - 60));
    first.chain(&['.', '.', '.']).chain(last).collect()
}

/// A part of a document that the daemon ignored, or that is unusual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Warning {
    /// The place in the document.
    pub target: String,
    /// One sentence.
    pub message: String,
}

/// An error as the API shows it: what, where, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Error code for programs; does not change between versions.
    pub code: String,
    /// One sentence with the thing and its value.
    pub message: String,
    /// The resource or property it is about; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// What to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// The problems, if there are several: at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub details: Vec<ErrorBody>,
    /// How many problems there are beyond `details`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
    /// What is unusual beside the problems: at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// How many warnings there are beyond `warnings`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_warnings: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(crate) fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Longest text of an error, in bytes.
const LONGEST_TEXT: usize = 512;
/// Longest answer to a request that failed, in bytes.
pub const LONGEST_ERROR: usize = 256 << 10;

impl ErrorBody {
    /// An error of one problem.
    pub fn new(code: &str, message: impl Into<String>, target: &str, remedy: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            target: target.into(),
            remedy: remedy.into(),
            ..Self::default()
        }
    }

    /// Combines several problems into one error; a single problem stays as it is. `more` were counted only.
    pub fn many(code: &str, what: &str, mut details: Vec<ErrorBody>, more: usize) -> Self {
        if details.len() == 1 && more == 0 {
            return details.remove(0);
        }
        let listed = details.len().min(MAX_LISTED);
        let more = more + details.len() - listed;
        details.truncate(listed);
        let first =
            if more > 0 { format!(", of which the first {listed} are listed") } else { String::new() };
        Self {
            code: code.into(),
            message: format!("{what} has {} problems{first}", listed + more),
            details,
            more,
            ..Self::default()
        }
    }

    /// The error without what makes an answer too long: texts are cut, and the last details and warnings are only counted.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.cut();
        loop {
            let length = serde_json::to_vec(&self).map_or(0, |bytes| bytes.len());
            if length <= LONGEST_ERROR - 64 || self.details.is_empty() && self.warnings.is_empty() {
                return self;
            }
            let (details, warnings) = (self.details.len() / 2, self.warnings.len() / 2);
            self.more += self.details.len() - details;
            self.more_warnings += self.warnings.len() - warnings;
            self.details.truncate(details);
            self.warnings.truncate(warnings);
        }
    }

    fn cut(&mut self) {
        for text in [&mut self.code, &mut self.message, &mut self.target, &mut self.remedy] {
            cut(text);
        }
        self.more += self.details.len().saturating_sub(MAX_LISTED);
        self.more_warnings += self.warnings.len().saturating_sub(MAX_LISTED);
        self.details.truncate(MAX_LISTED);
        self.warnings.truncate(MAX_LISTED);
        self.details.iter_mut().for_each(Self::cut);
        for warning in &mut self.warnings {
            cut(&mut warning.target);
            cut(&mut warning.message);
        }
    }
}

/// Cuts a text that is too long.
fn cut(text: &mut String) {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        text.push_str("...");
    }
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        Self::new(error.code(), error.to_string(), error.target(), error.remedy())
    }
}

/// The body of every reply with a status of 400 and above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorReply {
    /// The error.
    pub error: ErrorBody,
}
