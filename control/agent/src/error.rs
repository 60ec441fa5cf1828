//! Errors of the daemon, and their HTTP status.

use std::path::PathBuf;

use culvert_api::{ErrorBody, ResourcePath};
use culvert_model::Problem;
use thiserror::Error;

use crate::DatapathError;

/// A request or a start that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The request's document cannot be read.
    #[error("the document cannot be read")]
    Form(Vec<culvert_api::Error>),
    /// The policy has problems.
    #[error("the policy has {} problems", .0.len())]
    Policy(Vec<Problem>),
    /// Other resources refer to the resource.
    #[error("{path} is in use")]
    InUse {
        /// The resource to delete.
        path: ResourcePath,
        /// The problems that the policy would have without it.
        problems: Vec<Problem>,
    },
    /// No such resource.
    #[error("{path} does not exist")]
    NotFound {
        /// The requested path.
        path: String,
    },
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("{path} does not match the request's precondition: its etag is {etag}")]
    Precondition {
        /// The resource.
        path: ResourcePath,
        /// Its etag; `none` where it does not exist.
        etag: String,
    },
    /// The body names another resource than the path.
    #[error("the body's resourceId is \"{body}\", but the request's path is {path}")]
    OtherId {
        /// The request's path.
        path: ResourcePath,
        /// The body's id.
        body: String,
    },
    /// The policy needs more of something than a host has.
    #[error("{0}")]
    Snapshot(#[from] culvert_model::SnapshotError),
    /// An invalid request.
    #[error("{message}")]
    BadRequest {
        /// One sentence.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// The store failed.
    #[error("store {path}: {detail}")]
    Store {
        /// Its file.
        path: PathBuf,
        /// The database's error.
        detail: String,
    },
    /// The datapath failed.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The daemon cannot listen on a socket.
    #[error("cannot listen on {address}: {detail}")]
    Listen {
        /// Path or address.
        address: String,
        /// The system's error.
        detail: String,
    },
    /// The TCP address is not a loopback address.
    #[error("{address} is not a loopback address, and the API has no authentication on TCP")]
    NotLoopback {
        /// As given.
        address: String,
    },
}

impl Error {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Error::Form(_) | Error::Policy(_) | Error::OtherId { .. } | Error::BadRequest { .. } => 400,
            Error::NotFound { .. } => 404,
            Error::InUse { .. } => 409,
            Error::Precondition { .. } => 412,
            Error::Snapshot(_) => 422,
            Error::Datapath(DatapathError::Invalid { .. }) => 400,
            Error::Datapath(DatapathError::Unavailable { .. }) => 503,
            Error::Datapath(DatapathError::Failed { .. } | DatapathError::InUse { .. })
            | Error::Store { .. } => 500,
            Error::Listen { .. } | Error::NotLoopback { .. } => 500,
        }
    }

    /// The error as clients see it.
    pub fn body(&self) -> ErrorBody {
        let simple =
            |code: &str, target: &str, remedy: &str| ErrorBody::new(code, self.to_string(), target, remedy);
        match self {
            Error::Form(errors) => ErrorBody::many(
                "InvalidDocument",
                "the document",
                errors.iter().map(ErrorBody::from).collect(),
            ),
            Error::Policy(problems) => {
                ErrorBody::many("InvalidPolicy", "the policy", problems.iter().map(ErrorBody::from).collect())
            }
            Error::InUse { path, problems } => ErrorBody {
                details: problems.iter().map(ErrorBody::from).collect(),
                ..simple(
                    "ResourceInUse",
                    &path.to_string(),
                    "first change or delete the resources that refer to it",
                )
            },
            Error::NotFound { path } => {
                simple("ResourceNotFound", path, "list the collection to see its resources")
            }
            Error::Precondition { path, .. } => simple(
                "PreconditionFailed",
                &path.to_string(),
                "get the resource again, and repeat the change with its new etag",
            ),
            Error::OtherId { path, .. } => simple(
                "ResourceIdMismatch",
                &path.to_string(),
                "leave resourceId out, or give it the path's value",
            ),
            Error::Snapshot(e) => simple("HostLimit", "", &e.remedy()),
            Error::BadRequest { remedy, .. } => simple("BadRequest", "", remedy),
            Error::Store { path, .. } => simple(
                "StoreFailed",
                &path.display().to_string(),
                "check that the disk has room and that no other culvertd uses the same --state",
            ),
            Error::Datapath(e) => simple(e.code(), "", e.remedy()),
            Error::Listen { address, .. } => simple(
                "ListenFailed",
                address,
                "check the path's permissions, and that no other culvertd uses it",
            ),
            Error::NotLoopback { address } => simple(
                "NotLoopback",
                address,
                "use 127.0.0.1 or [::1], and ssh -L or a proxy for other machines",
            ),
        }
    }
}
