//! Who sends a request.

use std::sync::Arc;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Look.
    Read,
    /// Change the policy, too.
    Write,
}

/// Who sends a request: an extension of it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) role: Role,
    /// Names of this daemon that the request may be for.
    pub(crate) names: Arc<[String]>,
}
