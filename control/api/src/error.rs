//! Errors of documents, and the form of every error in the API.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// A document that cannot be read as resources. Every variant names the place and the value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Not JSON.
    #[error("the document is not JSON: {detail}")]
    NotJson {
        /// The parser's message, with line and column.
        detail: String,
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
    /// A property twice, in different case.
    #[error("{target}.{name} occurs twice, in different case")]
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
            | Error::WrongType { target, .. } => target,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Error::NotJson { .. } => "correct the document at that line and column".into(),
            Error::NotABundle { .. } => {
                "write {\"virtualNetworks\": [...], \"networkInterfaces\": [...], ...}".into()
            }
            Error::UnknownCollection { known, .. } => format!("use one of {known}"),
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
    /// The problems, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub details: Vec<ErrorBody>,
}

impl ErrorBody {
    /// An error of one problem.
    pub fn new(code: &str, message: impl Into<String>, target: &str, remedy: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            target: target.into(),
            remedy: remedy.into(),
            details: Vec::new(),
        }
    }

    /// Combines several problems into one error; a single problem stays as it is.
    pub fn many(code: &str, what: &str, mut details: Vec<ErrorBody>) -> Self {
        if details.len() == 1 {
            return details.remove(0);
        }
        Self {
            code: code.into(),
            message: format!("{what} has {} problems", details.len()),
            details,
            ..Self::default()
        }
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
