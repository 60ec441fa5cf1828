//! Commands to the slow path's thread, and its status.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use culvert_flow::{FlowKey, Port};
use culvert_policy::Snapshot;

use crate::counters::Counters;
use crate::error::Result;
use crate::trace::PacketTrace;
use crate::underlay::{NextHopId, NextHopState, ServedAddress};

/// A command to the slow path's thread, with the channel of its reply.
pub(crate) enum Command {
    Apply(Arc<Snapshot>, Sender<Result<()>>),
    Status(Sender<Status>),
    Trace(Port, Vec<u8>, Sender<Result<PacketTrace>>),
    /// Delete records; the connections that they name restart their idle time.
    Flush(Vec<(FlowKey, u64)>, Sender<()>),
    Stop(Sender<()>),
}

/// The slow path's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Next hops with their states and the number of packets that wait for each.
    pub next_hops: Vec<(NextHopId, NextHopState, usize)>,
    /// Our provider addresses with the uplinks that serve them.
    pub addresses: Vec<ServedAddress>,
    /// Links of the uplinks.
    pub links: [bool; 2],
    /// Number of connections.
    pub connections: usize,
    /// Counters.
    pub counters: Counters,
    /// Packets at the host that were lost in restarts of the firmware.
    pub lost_in_restarts: u64,
    /// Whether the firmware has restarted and does not have its tables back yet.
    pub is_recovering: bool,
}
