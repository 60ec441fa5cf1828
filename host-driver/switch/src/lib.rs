//! The software switch: the match-action core on threads of the host, between ports of the host.
//!
//! To the slow path it is a NIC like any other ([`OffloadNic`](culvert_offload::OffloadNic)): misses go up as upcalls,
//! records and packets come down as flow commands. Policy, connections, next hops, packet order and moving uplinks are
//! therefore the same code whether a VM uses a VF or a TAP.
//!
//! * [`Pool`] and [`Packet`]: packet buffers, allocated once.
//! * [`SwitchPort`]: what a port does; the crate `culvert-ports` has the ports of a Linux host.
//! * [`Forwarder`]: one worker's datapath and ports, without thread and clock.
//! * [`WorkerSet`]: several forwarders that hand packets to each other, without threads.
//! * [`Switch`]: a worker set with a thread for each worker.

#![forbid(unsafe_code)]

mod attached_port;
mod burst;
mod commands;
mod events;
mod forwarder;
mod handoff;
mod mem_port;
pub mod memory;
mod notifier;
mod offload;
mod output;
mod packet;
pub mod packet_thread;
mod pended;
mod placement;
pub mod poll_loop;
mod pool;
mod port;
mod port_control;
mod port_state;
mod port_table;
mod reading;
mod remote;
mod replicate;
mod settings;
mod steering;
mod switch;
mod tables;
mod tickets;
mod turn;
mod upcall;
mod upcall_queue;
mod work;
mod worker;
mod worker_set;

pub use attached_port::{AttachedPort, Drops};
pub use burst::BURST;
pub use forwarder::Forwarder;
pub use mem_port::MemPort;
pub use notifier::Notifier;
pub use packet::{BUFFER, HEADROOM, LARGE_BUFFER, Packet};
pub use pool::Pool;
pub use port::{Opener, PortMonitor, Sent, SwitchPort};
pub use port_control::{PortControl, PortControlTx};
pub use port_state::{LengthDrops, PortState};
pub use settings::SwitchSettings;
pub use switch::{Load, Switch};
pub use worker_set::WorkerSet;
