//! One host without its hardware: the slow path and, in place of a NIC, the match-action core in memory.

mod host;
mod memory;
mod nic;

pub(crate) use host::{Host, NEXT_HOP, Treated, Verdict};
