//! The software switch against the core: bursts must do what the core does with one packet after the other, and several workers
//! together what it does alone.

mod compare;
mod effects;
mod engine;
mod sink;

pub use compare::{compare_bursts, compare_workers};
