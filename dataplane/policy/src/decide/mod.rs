//! The decision on a packet without a flow record.

mod answer;
mod decision;
mod inbound;
mod outbound;
mod packet;
mod record;
mod stateful;

use crate::connection::{Connections, Effects};
use crate::snapshot::Snapshot;
use crate::trace::TraceSink;

use decision::Stop;

pub use decision::{Decision, Forward};
pub use packet::{Input, Packet};
pub use stateful::allows;

/// Decides on a packet. Changes nothing: the caller applies the effects.
pub fn decide(
    snapshot: &Snapshot,
    connections: &Connections,
    packet: &Packet<'_>,
    now: u32,
    trace: &mut impl TraceSink,
) -> (Decision, Effects) {
    let result = match packet.input {
        Input::Vport(id) => outbound::decide(snapshot, connections, packet, id, now, trace),
        Input::Wire { peer, encap, vsid } => {
            inbound::decide(snapshot, connections, packet, (peer, encap, vsid), now, trace)
        }
    };
    result.unwrap_or_else(|stop| match stop {
        Stop::Drop(reason) => (Decision::Drop(reason), None),
        Stop::Reply(frame) => (Decision::Reply(frame), None),
    })
}
