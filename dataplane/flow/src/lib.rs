//! The match-action core: flow key, flow table, transposition, `process()`.
#![no_std]
#![deny(unsafe_code)]

mod clmul;
pub mod hash;
pub mod pending;
mod port;
pub mod record;
pub mod table;
pub mod tables;

pub use hash::HashSecret;
pub use port::Port;
pub use record::{Actions, ColdLine, Direction, FlowKey, FlowRecord, HotLine};
pub use table::{FlowTable, RecordId};
