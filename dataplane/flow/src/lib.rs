//! The match-action core: flow key, flow table, transposition, `process()`.
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
pub use verdict::Verdict;
