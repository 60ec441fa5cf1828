//! [`HostConfig`]: one host's configuration, and what it is derived for.

use std::sync::Arc;

use culvert_flow::HashSecret;
use culvert_packet::VportId;
use culvert_policy::snapshot::{Snapshot, Target};
use thiserror::Error;

use crate::Fabric;

/// Properties of a host that no policy sets.
#[derive(Clone, Debug)]
pub struct Site {
    /// The host's name: its server's resource id.
    pub host: String,
    /// Secret of the entropy in outer headers.
    pub entropy: HashSecret,
    /// Virtual functions of its NIC.
    pub vfs: u16,
    /// Receive queues of its NIC. Without queues and virtual functions, the switch serves all interfaces.
    pub vmqs: u16,
}

/// One host's share of the policy.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The whole policy.
    pub fabric: Arc<Fabric>,
    /// Index of this host in it; none: the policy does not know this host.
    pub host: Option<usize>,
    /// The interfaces that are on this host.
    pub vports: Vec<LocalVport>,
    /// The policy engine's view of it.
    pub snapshot: Arc<Snapshot>,
}

/// An interface on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalVport {
    /// Its number.
    pub id: VportId,
    /// Index into [`Fabric::interfaces`].
    pub interface: usize,
    /// What serves it.
    pub target: Target,
}

/// The policy needs more of something than a host has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this host needs more than {limit} {what}")]
pub struct SnapshotError {
    /// The resource that is short.
    pub what: &'static str,
    /// How many a host can have.
    pub limit: u16,
}

impl SnapshotError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        format!("place the virtual machines so that each host needs at most {} {}", self.limit, self.what)
    }
}
