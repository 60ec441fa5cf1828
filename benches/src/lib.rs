//! Benchmarks. Each prints a table, or with `--json` the same as data; none asserts a time.
//!
//! * `core`: cycles per packet of the match-action core on this machine.
//! * `firmware`: guest instructions per packet of the firmware.
//! * `switch`: cycles per packet of the software switch, between ports in memory.
//! * `workers`: packets per second of one and of several workers of the software switch.
//! * `connections`: new connections per second of the software switch, and the cost of aging.
//! * `ovs_dpdk`: as `switch`, interleaved with Open vSwitch on DPDK, which does the same work on the same frames.
//! * `vhost`: the software switch and Open vSwitch, interleaved, with guests of this process on vhost-user ports.
//! * `vms`: TCP between two VMs over either.
//! * `plot`: pictures of the results of `switch` and `ovs_dpdk`.

pub mod allocations;
pub mod clock;
pub mod cpu;
pub mod flood;
pub mod generator;
pub mod mem_switch;
pub mod ovs_dpdk;
pub mod plot;
pub mod policy;
pub mod shared_memory;
pub mod stats;
pub mod vhost;
pub mod work;
