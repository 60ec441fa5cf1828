//! Back end of a VM's virtio network device (vhost-user), to which the VM's VMM connects.
//!
//! 1. [`Server`](server::Server)'s thread accepts a VMM and reads its requests ([`message`]).
//! 2. [`Session`](session::Session) executes them: it maps the guest's [`MemTable`](mem_table::MemTable), and creates a
//!    [`Ring`](culvert_virtio::Ring) when all its settings are known.
//! 3. It hands rings over as [`VringCommand`](control::VringCommand)s. The thread that forwards packets processes them between
//!    two bursts: it never waits, and the session knows when a ring is no longer in use.
//! 4. [`Vrings`](vrings::Vrings) receives frames from the rings and sends frames to them.
//!
//! A guest, its driver and its VMM are not trusted. An error of theirs is counted and stops this port until the VMM sets its
//! rings up again or reconnects. It has no other effect.

mod budget;
mod call_fd;
mod control;
mod features;
mod flow_hash;
mod frame_copy;
mod mem_table;
mod message;
mod port;
mod reaper;
mod refusal;
mod server;
mod session;
mod status;
mod vrings;

pub use port::VhostUser;
pub use status::{VhostUserCounters, VhostUserDrop, VhostUserStatus};
