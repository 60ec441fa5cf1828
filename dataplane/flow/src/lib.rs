//! The match-action core: flow key, flow table, transposition, `process()`.
#![no_std]
#![deny(unsafe_code)]

mod arp;
mod clmul;
pub mod datapath;
pub mod encap;
mod frame;
pub mod hash;
pub mod key;
mod line;
pub mod pending;
mod port;
mod prefetch;
pub mod process;
pub mod record;
mod rewrite;
pub mod table;
pub mod tables;

pub use datapath::Datapath;
pub use frame::Frame;
pub use hash::HashSecret;
pub use line::Keyed;
pub use port::Port;
pub use prefetch::{prefetch, prefetch_to_write};
pub use process::{Checksum, Classified, Probe, Verdict, Wire};
pub use record::{Actions, ColdLine, Direction, FlowKey, FlowRecord, HotLine};
pub use table::{FlowTable, RecordId};
