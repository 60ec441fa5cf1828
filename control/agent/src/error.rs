//! Errors of the daemon, and their HTTP status.

use std::path::PathBuf;

use culvert_api::{ErrorBody, ResourcePath};
use culvert_model::Problems;
use thiserror::Error;

use crate::DatapathError;

/// A request or a start that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The request's document cannot be read.
    #[error("the document cannot be read")]
    Form(culvert_api::Findings),
    /// The policy has problems.
    #[error("the policy has {} problems", .0.count())]
    Policy(Problems),
    /// Other resources refer to the resource.
    #[error("{path} is in use")]
    InUse {
        /// The resource to delete.
        path: ResourcePath,
        /// The problems that the policy would have without it.
        problems: Problems,
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
    /// A policy that would delete most virtual machines' interfaces.
    #[error("this policy deletes {deleted} of {of} network interfaces")]
    ManyDeleted {
        /// How many it deletes.
        deleted: usize,
        /// How many there are.
        of: usize,
    },
    /// The body is too long.
    #[error("the body has more than {limit} bytes")]
    TooLong {
        /// How many it may have.
        limit: usize,
    },
    /// A method that a resource does not have.
    #[error("{method} is not allowed on {path}")]
    Method {
        /// As sent.
        method: String,
        /// As sent.
        path: String,
        /// The methods that it has, for `Allow`; empty: the router knows.
        allow: &'static str,
    },
    /// A request that may come from a page in a browser, or for another host.
    #[error("{message}")]
    Foreign {
        /// The HTTP status.
        status: u16,
        /// One sentence.
        message: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The daemon is stopping.
    #[error("culvertd is stopping; nothing was changed")]
    Stopping,
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
    /// What TLS needs is missing or cannot be read.
    #[error("TLS: {detail}")]
    Tls {
        /// The file, and what is wrong with it.
        detail: String,
    },
}

impl Error {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Error::Form(_) | Error::Policy(_) | Error::OtherId { .. } | Error::BadRequest { .. } => 400,
            Error::NotFound { .. } => 404,
            Error::InUse { .. } | Error::ManyDeleted { .. } => 409,
            Error::TooLong { .. } => 413,
            Error::Method { .. } => 405,
            Error::Foreign { status, .. } => *status,
            Error::Stopping => 503,
            Error::Precondition { .. } => 412,
            Error::Snapshot(_) => 422,
            Error::Datapath(DatapathError::Invalid { .. }) => 400,
            Error::Datapath(DatapathError::Unavailable { .. }) => 503,
            Error::Datapath(DatapathError::Failed { .. } | DatapathError::InUse { .. })
            | Error::Store { .. } => 500,
            Error::Listen { .. } | Error::Tls { .. } => 500,
        }
    }

    /// The error as clients see it.
    pub fn body(&self) -> ErrorBody {
        let simple =
            |code: &str, target: &str, remedy: &str| ErrorBody::new(code, self.to_string(), target, remedy);
        match self {
            Error::Form(findings) => findings.body(),
            Error::Policy(problems) => problems.body(),
            Error::InUse { path, problems } => ErrorBody {
                details: problems.list.iter().map(ErrorBody::from).collect(),
                more: problems.more,
                ..simple(
                    "ResourceInUse",
                    &path.to_string(),
                    "first change or delete the resources that refer to it",
                )
            },
            Error::ManyDeleted { .. } => simple(
                "ManyDeleted",
                "/networkInterfaces",
                "if that is meant, repeat it with force=true (--force); mode=merge (--merge) deletes nothing",
            ),
            Error::TooLong { .. } => {
                simple("BodyTooLong", "", "divide the policy, and apply its parts with mode=merge")
            }
            Error::Method { path, .. } => {
                simple("MethodNotAllowed", path, "use a method that the answer's Allow header lists")
            }
            Error::Foreign { remedy, .. } => simple("RequestRefused", "", remedy),
            Error::Stopping => simple("Stopping", "", "repeat the request when culvertd runs again"),
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
            Error::Tls { .. } => simple(
                "TlsFailed",
                "",
                "give --tls-cert, --tls-key, and --tls-client-ca or --tls-reader-ca, each a PEM file",
            ),
        }
    }
}
