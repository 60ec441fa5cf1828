//! Decides on a flow's first packet: layers, groups, rules, connection tracking.
//!
//! Pure: [`decide()`] reads a [`Snapshot`] of the policy and the [`Connections`], and returns a decision with its effects. Only
//! the caller applies them, by [`Connections::apply`]; so a trace calls the same function and changes nothing.
//!
//! ```
//! use culvert_flow::{HashSecret, key};
//! use culvert_packet::craft::{self, Ends};
//! use culvert_packet::{MacAddr, Reason, VportId, parse};
//! use culvert_policy::{Connections, Decision, Input, Packet, Snapshot, Timeouts, decide};
//!
//! let snapshot = Snapshot::empty(MacAddr([2, 0, 0, 0, 0, 1]), HashSecret([1; 9]));
//! let connections = Connections::new(1000, 500, Timeouts::default(), HashSecret([2; 9]));
//!
//! let [src_mac, dst_mac] = [MacAddr([2, 0, 0, 0, 0, 0x11]), MacAddr([2, 0, 0, 0, 0, 0x12])];
//! let ends = Ends { src_mac, dst_mac, src: [10, 1, 1, 11].into(), dst: [10, 1, 1, 12].into() };
//! let mut frame = [0; 128];
//! let len = craft::udp(&mut frame, &ends, 1000, 53, b"hello").unwrap();
//! let frame = &frame[..len];
//! let headers = parse(frame).unwrap();
//! let key = key::outbound(VportId(0), frame, &headers);
//! let packet = Packet { input: Input::Vport(VportId(0)), frame, headers, key };
//!
//! // The policy has no vport 0, so nothing is forwarded and no connection begins.
//! let (decision, effects) = decide(&snapshot, &connections, &packet, 0, &mut ());
//! assert_eq!(decision, Decision::Drop(Reason::NoVport));
//! assert!(effects.is_none());
//! ```
//!
//! `examples/decide.rs` has a whole policy and prints the trace.
//!
//! Layers, in their order. From a vport: port (state, VLAN, source MAC and CA), bridge or router, lists of both vports'
//! sides, connection, mapping. From the wire: peer, source, bridge, lists, connection.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acl;
pub mod connection;
mod decide;
pub mod snapshot;
pub mod trace;

pub use connection::{Connection, ConnectionId, Connections, Effect, Effects, Timeouts};
pub use decide::{Decision, Forward, Input, Packet, allows, decide};
pub use snapshot::{Mapping, Mappings, Snapshot};
pub use trace::{Layer, ListDirection, TraceSink, TraceStep};
