//! The traits of a NIC that the slow path offloads flows to, and the types that pass between the two.
//!
//! A NIC forwards the packets of flows that it has records for. A packet without a record goes up to the host as an
//! [`Upcall`]; the slow path answers with [`FlowCommand`]s: records first, then the packet itself. The Culvert PF driver,
//! the software switch and the NIC of `culvert replay` all implement the same three traits:
//!
//! * [`FlowTables`]: writes and reads tables, executes flow commands.
//! * [`PacketIo`]: upcalls, frames to the NIC, and VMQs.
//! * [`DeviceInfo`]: capabilities, counters, links and events.
//!
//! [`OffloadNic`] is all three together.

#![forbid(unsafe_code)]

mod command;
mod error;
mod event;
mod event_fd;
mod nic;
mod reading;
mod statistics;
mod tables;
mod upcall;

pub use command::{FlowCommand, ReinjectMeta};
pub use error::{Error, Result};
pub use event::{Event, EventQueue};
pub use event_fd::EventFd;
pub use nic::{Capabilities, DeviceInfo, FlowTables, OffloadNic, PacketIo, Scan, idle_ms};
pub use reading::{Reading, VportReading, WorkerReading};
pub use statistics::{NicCounters, PortCounters};
pub use tables::{FdbEntry, Generation, GenerationWrite, TableWrite, VfConfig, VmqFilter};
pub use upcall::{ControlCopy, RxQueue, Upcall, UpcallMeta, UpcallQueue, VmqFrame, VmqQueue};
