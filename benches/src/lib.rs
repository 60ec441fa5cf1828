//! Benchmarks. Each prints a table, or with `--json` the same as data; none asserts a time.
//!
//! * `core`: cycles per packet of the core on this machine.
//! * `firmware`: guest instructions per packet of the firmware.
//! * `soft`: cycles per packet of the software path, between ports in memory.
//! * `peers`: the same, in turns with Open vSwitch on DPDK, which does the same work on the same frames.
//! * `plot`: pictures of what the last two measured.
//! * `vhost`: the software path and Open vSwitch with guests of this process on vhost-user ports, in turns.
//! * `vms`: TCP between two VMs over either.
//! * `connections`: new connections per second of the software path, and what ageing costs.

pub mod allocations;
pub mod clock;
pub mod flood;
pub mod generator;
pub mod peers;
pub mod plot;

pub mod soft;
pub mod vhost;
pub mod work;
