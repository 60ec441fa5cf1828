//! The PF driver of the Culvert NIC.
//!
//! It sees hardware only through [`culvert_pci::Device`], and shares with it only the definitions of `culvert_abi`.
//!
//! # Life of a NIC
//! 1. [`Nic::open`] checks that the function is ours and that the board speaks this version of the interface.
//! 2. If firmware runs already and has been configured, it is taken over as it is ([`Nic::adopted`]): the NIC has kept
//!    forwarding while nobody drove it. Packets that were at the former driver are lost and counted (`HostRestart`).
//! 3. Otherwise the image is checked, handed over in DMA memory and started; [`Nic::open`] waits until it is ready.
//! 4. The mailbox says HELLO, and CONFIGURE gives the firmware its secret and the router's MAC.
//! 5. The rings of queue 0 (to the NIC), of upcalls and of completions are set up, each with its interrupt.
//! 6. The owner writes vports, peers, tunnels and so on, enables VFs ([`Nic::enable_vfs`]), and then lets packets flow:
//!    [`Nic::start`].
//! 7. Upcalls arrive through [`Nic::upcalls`]; records and packets go back, in order, through [`Nic::batch`].
//!    Frames of VMs on VMQs go the same way, but only while there is room ([`Nic::enqueue`]).
//! 8. The watchdog looks at the firmware four times a second and at every event interrupt. When firmware dies, commands
//!    fail, [`FirmwareDied`](culvert_offload::Event::FirmwareDied) brings its last words; when the board has started it again it is configured, and
//!    [`FirmwareReady`](culvert_offload::Event::FirmwareReady) asks the owner to write its tables and to call [`Nic::start`] again.
//! 9. Dropping the [`Nic`] ends its threads and stops its queues. VFs and flows stay, unless the board is told
//!    otherwise.

#![forbid(unsafe_code)]

mod batch;
mod bring_up;
mod command;
mod completion;
mod counters;
mod enqueue;
mod error;
mod event;
mod firmware;
mod mailbox;
mod nic;
mod offload;
mod queue;
mod registers;
mod ring;
mod sriov;
mod sync;
mod upcall;
mod watchdog;

pub use batch::Batch;
pub use bring_up::Config;

pub use culvert_pci::{Interrupt, VfHandle};
pub use error::{Error, Result};
pub use event::Events;
pub use firmware::{FirmwareInfo, FirmwareStatus, check_image};
pub use nic::{Identity, Nic};
pub use queue::RxQueue;
pub use ring::{HostToNic, NicToHost, RING_BUFFER};
pub use upcall::upcall_meta;
