//! States of ports, and how far the policy is carried out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of an uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UplinkState {
    /// The policy gives it no provider address.
    #[default]
    Unused,
    /// It is being opened.
    Opening,
    /// It carries packets.
    Up,
    /// It carries packets, but not all that the policy needs.
    Degraded,
    /// It has no link.
    Down,
    /// It is not there, or cannot be opened; it is tried again.
    Failed,
}

impl UplinkState {
    /// The word in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            UplinkState::Unused => "unused",
            UplinkState::Opening => "opening",
            UplinkState::Up => "up",
            UplinkState::Degraded => "degraded",
            UplinkState::Down => "down",
            UplinkState::Failed => "failed",
        }
    }
}

/// How far the desired policy is carried out on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressView {
    /// Vports of the policy on this host.
    pub vports: usize,
    /// Those to which a virtual machine can attach.
    pub vports_done: usize,
    /// Uplinks to which the policy gives provider addresses.
    pub uplinks: usize,
    /// Those that carry all packets that the policy needs.
    pub uplinks_done: usize,
    /// The vports and uplinks that are not done yet: the first [`ProgressView::MAX_PENDING`].
    pub pending: Vec<PendingView>,
}

impl ProgressView {
    /// Longest list of what is not done.
    pub const MAX_PENDING: usize = 100;

    /// Whether everything is carried out.
    pub fn is_done(&self) -> bool {
        self.vports == self.vports_done && self.uplinks == self.uplinks_done
    }
}

/// A vport or an uplink that does not do yet what the policy asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PendingView {
    /// `vport 3` or `uplink 0`.
    pub port: String,
    /// The network interface's resource id, or the uplink's interface; may be empty.
    pub name: String,
    /// Its state: `opening`, `failed`, `down` or `degraded`.
    pub state: String,
    /// Why, and what to do.
    pub reason: String,
}
