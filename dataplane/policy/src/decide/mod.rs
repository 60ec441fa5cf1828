//! The decision on a packet that no flow record serves.

mod answer;
mod inbound;
mod outbound;
mod record;
mod stateful;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use culvert_flow::{FlowKey, FlowRecord};
use culvert_packet::{Encap, Family, Fragment, Headers, MacAddr, Reason, VportId};

use crate::connection::{Connections, Effects};
use crate::snapshot::Snapshot;
use crate::trace::TraceSink;

pub use stateful::allows;

/// Where a packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// From a vport of this host.
    Vport(VportId),
    /// From another host.
    Wire {
        /// Its index.
        peer: u16,
        /// How the packet was carried.
        encap: Encap,
        /// Its VSID.
        vsid: u32,
    },
}

/// A packet to be decided on.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Where it came in.
    pub input: Input,
    /// The inner frame.
    pub frame: &'a [u8],
    /// Its headers.
    pub headers: Headers,
    /// Its flow key.
    pub key: FlowKey,
}

/// What is to be done with a packet, and with those like it.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It goes on.
    Forward(Box<Forward>),
    /// This frame is the answer, back to the vport; the packet itself ends here.
    Reply(Vec<u8>),
    /// It ends here.
    Drop(Reason),
}

/// How a packet goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The record of its flow.
    pub record: FlowRecord,
    /// The record of the answers.
    pub reverse: Option<FlowRecord>,
    /// Whether the records may be installed; if not, why.
    pub offload: Result<(), Reason>,
}

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

/// The end of a packet before the last layer.
enum Stop {
    Drop(Reason),
    Reply(Vec<u8>),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Stop::Drop(reason)
    }
}

type Outcome = Result<(Decision, Effects), Stop>;

impl Packet<'_> {
    fn dst_mac(&self) -> MacAddr {
        MacAddr(self.key.dst_mac)
    }

    fn src_mac(&self) -> MacAddr {
        MacAddr(self.key.src_mac)
    }

    /// Source and destination address of an IP packet.
    fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let v4 = |a: &[u8; 16]| IpAddr::from([a[0], a[1], a[2], a[3]]);
        match self.headers.family {
            Family::V4 => Some((v4(&self.key.src), v4(&self.key.dst))),
            Family::V6 => Some((IpAddr::from(self.key.src), IpAddr::from(self.key.dst))),
            Family::Arp | Family::Other => None,
        }
    }

    /// Whether flows of such packets can be installed.
    fn offload(&self) -> Result<(), Reason> {
        if self.headers.fragment == Fragment::None { Ok(()) } else { Err(Reason::FragmentsNotOffloaded) }
    }
}
