//! What the slow path asks the policy.

use culvert_flow::{Classified, FlowKey, FlowRecord, Port};
use culvert_packet::{Headers, Reason};
use culvert_policy::Forward;

/// A packet to be decided on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'p> {
    /// Where it came in.
    pub input: Port,
    /// Why the NIC did not forward it.
    pub reason: Reason,
    /// Its key, headers and outer part.
    pub packet: &'p Classified,
    /// The frame that the tenant sent: without outer headers.
    pub inner: &'p [u8],
    /// Milliseconds, wrapping.
    pub now: u32,
}

/// What is to become of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is treated by a record, which the NIC gets with that of the answers if nothing speaks against it.
    Forward(Box<Forward>),
    /// It is answered with this frame, and goes nowhere.
    Reply(Vec<u8>),
    /// Nothing.
    Drop(Reason),
}

/// A connection that has been idle for as long as its state allows, or has been closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Its handle.
    pub connection: u64,
    /// Keys of its records.
    pub keys: [Option<FlowKey>; 2],
    /// Whether it has ended for good, whatever the NIC has counted.
    pub closed: bool,
}

/// The policy with its connections, as the slow path sees it.
pub trait Policy: Send {
    /// Decides on a packet, and remembers its connection.
    fn decide(&mut self, question: &Question<'_>) -> Decision;
    /// A TCP segment that opens or closes a connection has gone by.
    fn control(&mut self, connection: u64, headers: &Headers, now: u32);
    /// Connections that seem to have ended, at most `limit`. They stay until they are forgotten.
    fn expired(&mut self, now: u32, limit: usize) -> Vec<Expired>;
    /// Whether [`expired`](Self::expired) should be asked again soon: it did not get to look at all of them.
    fn is_behind(&self) -> bool {
        false
    }
    /// Whether a record's cold part names a connection that there is.
    fn knows(&self, connection: u64) -> bool;
    /// A connection was in use after all.
    fn touch(&mut self, connection: u64, now: u32);
    /// A connection has ended.
    fn forget(&mut self, connection: u64);
    /// How many connections there are.
    fn connections(&self) -> usize;
    /// Records of all connections that the NIC may have, for a NIC that has lost them.
    fn records(&self) -> Vec<FlowRecord>;
    /// Takes over connections from the records that a NIC has kept.
    fn adopt(&mut self, records: &[FlowRecord], now: u32);
}
