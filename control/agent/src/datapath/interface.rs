//! What the daemon asks of the packet path.

use std::sync::Arc;

use culvert_api::view::{
    CountersView, DropsView, FlowQuery, FlowView, FlushReply, NicInfo, TalkerView, TraceReply, TraceRequest,
    VportView,
};
use culvert_model::HostConfig;
use culvert_slowpath::RuleHit;
use thiserror::Error;

use super::conditions::Conditions;

/// Virtual functions of the largest NIC.
const MAX_VFS: u16 = 64;

/// Applies a host's configuration and reports on packets. Calls may take milliseconds, on threads that may wait.
pub trait Datapath: Send + Sync + 'static {
    /// Replaces the host's configuration. When it returns, no flow of the old configuration that the new one changes
    /// serves a packet.
    ///
    /// # Errors
    /// Nothing, or not everything, was applied: the daemon tries again.
    fn apply(&self, config: Arc<HostConfig>) -> Result<(), DatapathError>;

    /// Identity, state and offloads of the NIC. This and the other views say in `stale_s` if they are of an earlier time,
    /// because the NIC does not answer now.
    ///
    /// # Errors
    /// The NIC was never seen.
    fn nic(&self) -> Result<NicInfo, DatapathError>;

    /// Vports with their states and counters. The daemon fills in the names of resources.
    ///
    /// # Errors
    /// The NIC was never seen.
    fn vports(&self) -> Result<Vec<VportView>, DatapathError>;

    /// Flow records, at most as many as the query asks for.
    ///
    /// # Errors
    /// The NIC does not answer.
    fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowView>, DatapathError>;

    /// Counters of ports, NIC and slow path.
    ///
    /// # Errors
    /// The NIC was never seen.
    fn counters(&self) -> Result<CountersView, DatapathError>;

    /// Drops by reason.
    ///
    /// # Errors
    /// The NIC was never seen.
    fn drops(&self) -> Result<DropsView, DatapathError>;

    /// Vports, counters and drops at once: the datapath is read once.
    ///
    /// # Errors
    /// The NIC was never seen.
    fn measure(&self) -> Result<Measurement, DatapathError> {
        let links = self.nic()?.uplinks.iter().map(|uplink| uplink.link).collect();
        Ok(Measurement { links, vports: self.vports()?, counters: self.counters()?, drops: self.drops()? })
    }

    /// Those who send most, by the packets and bytes that their flow records have counted.
    ///
    /// # Errors
    /// The query is invalid, or the NIC does not answer.
    fn talkers(&self, query: &FlowQuery) -> Result<Vec<TalkerView>, DatapathError> {
        let _ = query;
        Ok(Vec::new())
    }

    /// Deletes flow records. The next packet of each flow makes its record again.
    ///
    /// # Errors
    /// The query is invalid or has neither a filter nor `all`, or the NIC does not answer.
    fn flush_flows(&self, query: &FlowQuery) -> Result<FlushReply, DatapathError> {
        let _ = query;
        Ok(FlushReply::default())
    }

    /// How often each rule of the access control lists decided. Does not wait for anything.
    fn rule_hits(&self) -> Vec<RuleHit> {
        Vec::new()
    }

    /// Decides on a packet without changing anything. The request's port is a vport's number or an uplink.
    ///
    /// # Errors
    /// The request describes no packet, or the slow path does not answer.
    fn trace(&self, request: &TraceRequest) -> Result<TraceReply, DatapathError>;

    /// Virtual functions that a NIC which was never seen will have.
    fn planned_vfs(&self) -> u16 {
        MAX_VFS
    }

    /// Reads the views again, so that they are known when the NIC does not answer. Call it every few seconds.
    fn refresh(&self) {}

    /// What is wrong, one sentence each, beside the conditions of ports. Does not wait for the NIC.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// Looks at all ports anew. Call it twice a second.
    fn watch(&self) {}

    /// The states of all ports when they were last looked at. Does not wait.
    fn conditions(&self) -> Arc<Conditions> {
        Arc::default()
    }

    /// Whether the NIC's firmware answers; `None`: there is no NIC.
    fn firmware(&self) -> Option<bool> {
        Some(self.nic().is_ok_and(|nic| nic.firmware.alive))
    }
}

/// All that is counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    /// The link of each uplink.
    pub links: Vec<bool>,
    /// Vports with their states.
    pub vports: Vec<VportView>,
    /// Counters.
    pub counters: CountersView,
    /// Drops by reason.
    pub drops: DropsView,
}

/// Why the packet path did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DatapathError {
    /// It does not answer, or what it needs is missing.
    #[error("the datapath is not available: {detail}")]
    Unavailable {
        /// Why.
        detail: String,
    },
    /// It answered with an error.
    #[error("the datapath failed: {detail}")]
    Failed {
        /// What happened.
        detail: String,
    },
    /// Another daemon has an uplink.
    #[error("another culvertd (process {process}) uses the interface {interface} in this network namespace")]
    InUse {
        /// The uplink's interface.
        interface: String,
        /// The other daemon.
        process: i32,
    },
    /// The request is invalid.
    #[error("{detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
    },
}

impl DatapathError {
    pub(super) fn unavailable(error: &impl ToString) -> Self {
        DatapathError::Unavailable { detail: error.to_string() }
    }

    /// Error code for programs; does not change between versions.
    pub fn code(&self) -> &'static str {
        match self {
            DatapathError::Unavailable { .. } => "DatapathUnavailable",
            DatapathError::Failed { .. } => "DatapathFailed",
            DatapathError::InUse { .. } => "UplinkInUse",
            DatapathError::Invalid { .. } => "BadRequest",
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            DatapathError::Unavailable { .. } => {
                "check that the device, interfaces and processors named by --nic, --uplink and --core exist; a running \
                 culvertd retries by itself"
            }
            DatapathError::Failed { .. } => "see culvertd's log; culvertd retries by itself",
            DatapathError::InUse { .. } => "stop the other one, or start this one with another --uplink",
            DatapathError::Invalid { .. } => "correct the request",
        }
    }
}
