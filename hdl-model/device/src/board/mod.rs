//! The board: what the register file, the queue engine and the SoC are together.
//!
//! * [`State`] is what registers and engine share; register accesses (the PF's vfio-user thread) never wait for a burst.
//! * [`Engine`] is one thread: it takes frames from VFs, uplinks and the host into packet buffers, hands the firmware
//!   descriptors, and carries out the firmware's. It polls for a while and then sleeps.
//! * `supervisor` notices a dead firmware and starts it again.

mod counters;
mod engine;
mod firmware_side;
mod host_side;
mod pf_ring;
mod registers;
mod shadow;
mod share;
mod supervisor;

pub use self::counters::Counters;
pub use self::engine::{Engine, Uplink};
pub use self::registers::State;
