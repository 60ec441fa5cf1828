//! The match-action core: flow key, flow table, actions, and [`Datapath::process`], which takes one packet through them.
//!
//! A packet is parsed and checked ([`Classified`]), its key is looked up ([`FlowTable`]), and the record's actions are
//! applied ([`apply_record`]). A packet without a live record is punted to the host as an upcall, under a
//! [`Ticket`](pending::Ticket) that keeps its flow in order. Nothing here allocates or knows the time.
//!
//! A broadcast goes to each member of a group, and never back to the port that it came from:
//!
//! ```
//! use culvert_flow::tables::{Group, Member};
//! use culvert_flow::{FlowHot, Port, Replication};
//! use culvert_packet::VportId;
//!
//! let [a, b, c] = [0, 1, 2].map(|n| Port::Vport(VportId(n)));
//! let mut group = Group { len: 3, ..Group::default() };
//! for (member, port) in group.members.iter_mut().zip([a, b, c]) {
//!     *member = Member::Port(port).bits();
//! }
//!
//! let mut copies = Replication::new(&[group], 0, &FlowHot::default(), a, 60).expect("the group exists");
//! let mut outer = [0; culvert_packet::MAX_OUTER];
//! let mut ports = Vec::new();
//! while let Some(Ok(copy)) = copies.next_copy(&mut [], &mut outer) {
//!     ports.push(copy.to);
//! }
//! assert_eq!(ports, [b, c]);
//! ```
//!
//! `examples/encapsulate.rs` parses a frame and encapsulates it in VXLAN.
#![no_std]
#![deny(unsafe_code)]

mod apply;
mod arp;
mod classify;
mod clmul;
pub mod datapath;
pub mod encap;
mod fast_path;
mod frame;
pub mod hash;
pub mod key;
mod outer;
pub mod pending;
mod port;
mod process;
pub mod record;
mod replicate;
mod rewrite;
pub mod table;
mod table_sizes;
pub mod tables;
mod verdict;

pub use apply::{Applied, apply_record};
pub use classify::Classified;
pub use datapath::Datapath;
pub use fast_path::FastKey;
pub use frame::Frame;
pub use hash::HashSecret;
pub use outer::{Checksum, OuterInfo, ProviderAddresses, accept_outer};
pub use port::Port;
pub use process::{Probe, Source};
pub use record::{Actions, Direction, FlowCold, FlowHot, FlowKey, FlowRecord};
pub use replicate::{Replica, Replication};
pub use table::{FlowTable, RecordId};
pub use table_sizes::TableSizes;
pub use verdict::Verdict;
