//! Decisions, and how a layer ends one early.

use alloc::boxed::Box;
use alloc::vec::Vec;

use culvert_flow::FlowRecord;
use culvert_packet::Reason;

use crate::connection::Effects;

/// The decision on a packet and on those of its flow.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Forward it.
    Forward(Box<Forward>),
    /// Send this frame back to the vport, in place of the packet.
    Reply(Vec<u8>),
    /// Drop it.
    Drop(Reason),
}

/// How a packet is forwarded.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The record of its flow.
    pub record: FlowRecord,
    /// The record of the reverse direction.
    pub reverse: Option<FlowRecord>,
    /// Whether the records may be installed; if not, why.
    pub offload: Result<(), Reason>,
}

/// A decision made before the last layer.
pub(super) enum Stop {
    Drop(Reason),
    Reply(Vec<u8>),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Stop::Drop(reason)
    }
}

/// What a layer returns.
pub(super) type Outcome = Result<(Decision, Effects), Stop>;
