//! What the data path decides on a packet.

use culvert_packet::Reason;

use crate::pending::Ticket;
use crate::port::Port;
use crate::table::RecordId;

/// What the engine does with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Sends the rewritten frame out of `to`.
    Forward {
        /// A vport or an uplink.
        to: Port,
        /// The record that was applied.
        record: RecordId,
        /// Also copies it to the host (TCP control).
        copy: bool,
        /// Also copies it to the capture queue.
        capture: bool,
    },
    /// Sends a copy of the frame, rewritten but for outer headers, to each member of the group: see
    /// [`Replication`](crate::Replication).
    Replicate {
        /// The record that was applied.
        record: RecordId,
        /// The group.
        group: u16,
    },
    /// Sends the frame, which has become the answer to itself, out of the uplink that it came in by.
    Answer,
    /// Sends the unchanged packet to the host, as an upcall.
    Punt {
        /// Why.
        reason: Reason,
        /// The pending flow, if it has one.
        ticket: Option<Ticket>,
    },
    /// Keeps the buffer: it is in the waiting list of its flow.
    Wait,
    /// Drops the packet, which is counted already.
    Drop {
        /// Why.
        reason: Reason,
    },
}
