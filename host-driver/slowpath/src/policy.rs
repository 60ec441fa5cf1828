//! The policy and its connections, as the slow path sees them: the trait [`Policy`].

use culvert_flow::{Classified, FlowKey, FlowRecord, Port};
use culvert_packet::{Headers, Reason};
use culvert_policy::Decision;

/// A packet without a flow record, for the policy to decide on.
#[derive(Clone, Copy, Debug)]
pub struct DecisionRequest<'p> {
    /// The port that received the packet.
    pub input: Port,
    /// Why the NIC punted it.
    pub punt_reason: Reason,
    /// Its flow key, headers and outer headers.
    pub packet: &'p Classified,
    /// The tenant's frame, without outer headers.
    pub inner_frame: &'p [u8],
    /// Milliseconds, wrapping.
    pub now: u32,
}

/// A connection that is closed, or was idle for its time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiredConnection {
    /// Its id.
    pub connection: u64,
    /// Keys of its flow records: of the initiator's direction and of the reverse one.
    pub keys: [Option<FlowKey>; 2],
    /// Whether it is closed. If not, packets that the NIC has counted keep it alive.
    pub is_closed: bool,
}

/// The policy with its connections, as the slow path sees it.
pub trait Policy: Send {
    /// Decides on a packet, and stores its connection.
    fn decide(&mut self, request: &DecisionRequest<'_>) -> Decision;
    /// Updates a connection's state by the headers of a TCP segment that opens or closes it.
    fn tcp_control(&mut self, connection: u64, headers: &Headers, now: u32);
    /// Connections that seem to have ended, at most `limit`. They stay until [`remove`](Self::remove).
    fn expired(&mut self, now: u32, limit: usize) -> Vec<ExpiredConnection>;
    /// Whether [`expired`](Self::expired) left connections unchecked and should be called again soon.
    fn is_behind(&self) -> bool {
        false
    }
    /// Whether the connection that a flow record names exists.
    fn contains(&self, connection: u64) -> bool;
    /// Restarts a connection's idle time.
    fn touch(&mut self, connection: u64, now: u32);
    /// Removes a connection that has ended.
    fn remove(&mut self, connection: u64);
    /// Number of connections.
    fn connections(&self) -> usize;
    /// Flow records of all connections, for a NIC that has lost its tables.
    fn records(&self) -> Vec<FlowRecord>;
    /// Rebuilds connections from the flow records that a NIC has kept.
    fn adopt(&mut self, records: &[FlowRecord], now: u32);
}
