//! The board: register file, queue engine and SoC.
//!
//! * [`State`] is what registers and engine share; register accesses (the PF's vfio-user thread) never wait for a burst.
//! * [`Engine`] is one thread: it polls for a while and then sleeps. Each turn of it moves bursts through `datapath`:
//!   `ingress` takes frames from VFs and uplinks into packet buffers and hands the firmware descriptors, `commands` does so
//!   with the host's commands, `egress` executes the firmware's descriptors.
//! * `supervisor` notices a dead firmware, starts it again and replays `shadow` to it.

mod clock;
mod commands;
mod counters;
mod datapath;
mod egress;
mod engine;
#[doc(hidden)]
pub mod exercise;
mod firmware_link;
mod host_queues;
mod ingress;
mod pf_ring;
mod registers;
mod shadow;
mod supervisor;
mod upcall_share;

pub use self::counters::Counters;
pub use self::datapath::Uplink;
pub use self::engine::Engine;
pub use self::registers::State;
