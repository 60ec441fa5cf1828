//! The lockstep test: one trace through several engines must give equal bytes, verdicts and counters.
//!
//! A trace is a list of [`Event`]s. It is generated with the core ([`core::Core`], which calls `culvert-flow` only), because
//! the host's answers contain tickets that an engine issues. Then each engine runs it, and [`compare`] checks the outputs
//! of every event and, at the end, all counters and the whole table.

#![forbid(unsafe_code)]

pub mod core;
pub mod firmware;
pub mod frames;
pub mod generate;
pub mod memory;
pub mod soc;
pub mod switch;
pub mod trace;

pub use trace::{Dump, Engine, Event, Injected, Input, Output, What, compare};
