//! The traits by which every Culvert driver uses a PCI function, over vfio-user or Linux VFIO.
//!
//! A driver needs five things of a PCI function: its configuration space, its BARs, DMA memory, its interrupts, and (of
//! a PF) a way to enable VFs. [`Device`] is these five and nothing else, with two implementations that the driver cannot
//! tell apart:
//!
//! * [`vfio_user::Client`]: a function behind a UNIX socket, such as those of the emulated NIC `culvert-emu`;
//! * [`linux_vfio::Function`]: a function of this host, through `/dev/vfio`.
//!
//! [`FunctionAddress::open`] opens either.
//!
//! # Life cycle of a driver
//! 1. [`FunctionAddress::open`] connects and turns on memory access and bus mastering.
//! 2. [`capability::find`] and [`capability::find_extended`] locate structures in configuration space.
//! 3. [`Device::bar`] returns [`Registers`]: mapped where the device allows it, by messages otherwise.
//! 4. [`Device::alloc_dma`] returns [`DmaBuffer`]s. The device's address of a buffer is [`DmaBuffer::iova`].
//! 5. [`Device::interrupt`] returns an [`Interrupt`] per MSI-X vector, to wait for or to poll.
//! 6. Dropping a buffer unmaps it from the device; dropping the device closes the function, which resets it.
//!
//! The device is trusted no more than it must be: DMA memory is read only through bounded, atomic accessors, every wait
//! has a time-out, and lengths that the device reports are checked.

#![deny(unsafe_code)]

mod address;
pub mod capability;
mod command;
mod device;
mod dma;
mod error;
mod ids;
mod interrupt;
mod iova;
pub mod linux_vfio;
#[allow(unsafe_code, reason = "volatile access to registers that a device shares by mmap")]
mod mapped;
#[allow(unsafe_code, reason = "memory that a device changes concurrently")]
mod memory;
mod open;
mod registers;
mod sriov;
pub mod vfio_user;

pub use address::FunctionAddress;
pub use device::{Device, VfHandle};
pub use dma::{DmaBuffer, PageKind};
pub use error::{Error, Result};
pub use ids::name_of;
pub use interrupt::Interrupt;
pub use registers::Registers;
