//! One host in memory: its slow path and its switch, as a live host has them.

mod host;

pub(crate) use host::{Host, NEXT_HOP, Replayed, Verdict};
