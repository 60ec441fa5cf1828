//! Test deployments: all hosts of a Culvert network on one machine, for the end-to-end tests, the demo and the benchmarks.
//!
//! * [`deployment`]: boards and daemons of all hosts, with the [`network`] between them; [`programs`] and [`process`] run them.
//! * [`policies`]: what the daemons apply.
//! * [`vm`], [`linux_guest`], [`kernel_vm`]: three kinds of guests.
//! * [`openvswitch`]: a foreign host.
//! * [`tshark`], [`accounting`]: captures decoded, frames counted.
//! * [`netns`], [`address`], [`wait`]: namespaces, addresses as text, waiting with a limit.

pub mod accounting;
pub mod address;
pub mod deployment;
pub mod kernel_vm;
pub mod linux_guest;
pub mod netns;
pub mod network;
pub mod openvswitch;
pub mod policies;
pub mod process;
pub mod programs;
pub mod tshark;
pub mod vm;
pub mod wait;
