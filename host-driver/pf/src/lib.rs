//! The PF driver of the Culvert NIC.
//!
//! It reaches the hardware only through [`culvert_pci::Device`], and shares only the definitions of `culvert_abi` with it.
//!
//! # Life cycle of a NIC
//! 1. [`Nic::open`] checks that the function is a Culvert PF and that the board has this version of the interface.
//! 2. If configured firmware runs already, the driver adopts it ([`Nic::adopted`]): the NIC has kept forwarding without a
//!    driver. Packets that were at the previous driver are lost and counted (`HostRestart`).
//! 3. Otherwise the driver checks the image, loads it from DMA memory, starts it and waits until it is ready.
//! 4. The mailbox request HELLO compares versions; CONFIGURE sets the hash's secret and the router's MAC.
//! 5. Queue 0 (to the NIC), the upcall queue and the completion queue are set up, each with its interrupt.
//! 6. The owner writes the tables, enables VFs ([`Nic::enable_vfs`]), and starts forwarding ([`Nic::start`]).
//! 7. Upcalls arrive through [`Nic::upcalls`]; records and packets go back, in order, through [`Nic::batch`].
//!    Frames of VMs on VMQs go the same way, but only while queue 0 has room ([`Nic::enqueue`]).
//! 8. The watchdog polls the firmware four times a second and at every event interrupt. When the firmware dies, commands
//!    fail, and [`FirmwareDied`](culvert_offload::Event::FirmwareDied) carries the text of its panic and the end of its
//!    log. When the board has restarted it, the driver configures it, and
//!    [`FirmwareReady`](culvert_offload::Event::FirmwareReady) asks the owner to write the tables and to start again.
//! 9. Dropping the [`Nic`] ends its threads and stops its queues. VFs and flow records stay: a board resets them on
//!    disconnect only if it is configured to.
//!
//! [`Nic`] implements the traits of `culvert_offload`, by which the slow path drives it. So does [`AttachedNic`], the place
//! of a NIC that may die, be removed and come back: it opens the NIC again, and its owner drives whichever is there.

#![forbid(unsafe_code)]

mod attached;
mod batch;
mod bring_up;
mod command;
mod completion;
mod counters;
mod enqueue;
mod error;
mod event;
mod firmware;
mod identity;
mod mailbox;
mod nic;
mod offload;
mod queue;
mod registers;
mod ring;
mod shared;
mod sriov;
mod sync;
mod upcall;
mod watchdog;

pub use attached::{AttachedNic, NicState, NicStatus, Opener};
pub use batch::Batch;
pub use bring_up::Config;
pub use culvert_pci::{Interrupt, VfHandle};
pub use error::{Error, Result};
pub use event::Events;
pub use firmware::{FirmwareInfo, FirmwareStatus, check_image};
pub use identity::Identity;
pub use nic::Nic;
pub use queue::RxQueue;
pub use ring::{HostToNic, NicToHost, RING_BUFFER};
pub use shared::Observed;
pub use upcall::upcall_meta;
