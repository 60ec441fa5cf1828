//! The match-action core: flow key, flow table, transposition, `process()`.
#![no_std]
#![deny(unsafe_code)]

mod arp;
mod clmul;
pub mod datapath;
pub mod encap;
mod fast_path;
mod frame;
pub mod hash;
pub mod key;
pub mod pending;
mod port;
mod prefetch;
pub mod process;
pub mod record;
mod rewrite;
pub mod table;
pub mod tables;

pub use datapath::Datapath;
pub use fast_path::FastKey;
pub use frame::Frame;
pub use hash::HashSecret;
pub use port::Port;
pub use prefetch::{prefetch, prefetch_to_write};
pub use process::{Checksum, Classified, OuterInfo, Probe, Verdict};
pub use record::{Actions, Direction, FlowCold, FlowHot, FlowKey, FlowRecord};
pub use table::{FlowTable, RecordId};
