//! The lockstep test: one trace through several engines must give equal bytes, verdicts and counters.
//!
//! A trace is a list of [`Event`]s. It is made against the core ([`core::Core`], which calls `culvert-flow` and nothing
//! else), because the host's answers name tickets that an engine gives out; then each engine runs it, and
//! [`compare`] looks at every event's outputs and, at the end, at all counters and the whole table.

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
