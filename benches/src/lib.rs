//! Benchmarks. Each prints a table, or with `--json` the same as data; none asserts a time.
//!
//! * `core`: cycles per packet of the core on this machine.
//! * `firmware`: guest instructions per packet of the firmware.
//! * `soft`: cycles per packet of the software path, between ports in memory.

pub mod clock;
pub mod generator;
pub mod work;
