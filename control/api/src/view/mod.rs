//! Views of the running host. Reasons are the words of `culvert_packet::Reason`.

mod counters;
mod flow;
mod log_level;
mod nic;
mod rule;
mod state;
mod trace;
mod vport;

pub use counters::{CountersView, DropEntry, DropsView, LengthDrop, PortCounters, Usage, WorkerCounters};
pub use flow::{FlowFilter, FlowOrder, FlowQuery, FlowState, FlowView, FlushReply, TalkerView};
pub use log_level::LogLevelView;
pub use nic::{FirmwareView, NicInfo, OffloadView, UplinkView};
pub use rule::RuleView;
pub use state::{PendingView, ProgressView, UplinkState};
pub use trace::{TraceHop, TraceReply, TraceRequest, TraceTuple, Verdict};
pub use vport::{MappingView, VportState, VportView};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthView {
    /// There are no problems.
    pub ok: bool,
    /// The daemon's version.
    pub version: String,
    /// This host's name in the policy.
    pub host: String,
    /// The policy's version in the store.
    pub desired_version: u64,
    /// The policy's version that the datapath has applied.
    pub applied_version: u64,
    /// Whether the NIC's firmware answers; left out on a host without a NIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware_alive: Option<bool>,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// How far the policy in the store is carried out.
    pub progress: ProgressView,
}
