//! The narrow side of the packet path: all that the daemon asks of it.

use std::sync::Arc;

use culvert_api::view::{
    CountersView, DropsView, FlowQuery, FlowView, NicInfo, TraceReply, TraceRequest, VportView,
};
use culvert_model::HostPart;
use thiserror::Error;

/// What carries a host's policy out. Calls may take milliseconds; they come from threads that may wait.
pub trait Datapath: Send + Sync + 'static {
    /// Carries out a host's part of the policy in place of the one before. When it returns, no packet is served by a
    /// flow of the old one that the new one changes.
    ///
    /// # Errors
    /// It could not, or not completely: the daemon tries again.
    fn apply(&self, part: Arc<HostPart>) -> Result<(), DatapathError>;

    /// The NIC.
    ///
    /// # Errors
    /// It does not answer.
    fn nic(&self) -> Result<NicInfo, DatapathError>;

    /// The vports with their states and counters. Names of resources are filled in by the daemon.
    ///
    /// # Errors
    /// The NIC does not answer.
    fn vports(&self) -> Result<Vec<VportView>, DatapathError>;

    /// Flows, at most as many as asked for.
    ///
    /// # Errors
    /// The NIC does not answer.
    fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowView>, DatapathError>;

    /// Counters of ports, NIC and host.
    ///
    /// # Errors
    /// The NIC does not answer.
    fn counters(&self) -> Result<CountersView, DatapathError>;

    /// Drops by reason.
    ///
    /// # Errors
    /// The NIC does not answer.
    fn drops(&self) -> Result<DropsView, DatapathError>;

    /// What would become of a packet. Changes nothing. The request's port is a vport's number or an uplink.
    ///
    /// # Errors
    /// The request makes no packet, or the slow path does not answer.
    fn trace(&self, request: &TraceRequest) -> Result<TraceReply, DatapathError>;
}

/// What the packet path could not do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DatapathError {
    /// It is not there now.
    #[error("the datapath is not available: {detail}")]
    Unavailable {
        /// Why.
        detail: String,
    },
    /// It is there and failed.
    #[error("the datapath failed: {detail}")]
    Failed {
        /// What happened.
        detail: String,
    },
    /// The request makes no sense to it.
    #[error("{detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
    },
}

impl DatapathError {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            DatapathError::Unavailable { .. } => "DatapathUnavailable",
            DatapathError::Failed { .. } => "DatapathFailed",
            DatapathError::Invalid { .. } => "BadRequest",
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            DatapathError::Unavailable { .. } => {
                "check that what --nic, --uplink or --core names is there; a culvertd that runs tries again by itself"
            }
            DatapathError::Failed { .. } => "see culvertd's log; culvertd tries again by itself",
            DatapathError::Invalid { .. } => "correct what was asked for",
        }
    }
}
