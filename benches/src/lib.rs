//! Benchmarks. Each prints a table, or with `--json` the same as data; none asserts a time.
//!
//! * `core`: cycles per packet of the core on this machine.

pub mod work;
