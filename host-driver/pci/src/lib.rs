//! The one small trait set through which every Culvert driver sees hardware.
//!
//! A driver needs five things of a PCI function: its configuration space, its BARs, memory that the function may
//! reach by DMA, its interrupts, and (a PF) a way to make VFs. [`Device`] is these five and nothing else, with two
//! implementations that the driver cannot tell apart:
//!
//! * [`vfio_user::Client`]: a function behind a UNIX socket, such as those of the emulated NIC `culvert-emu`;
//! * [`linux_vfio::Function`]: a function of this machine, through `/dev/vfio`.
//!
//! [`FunctionAddress`] names either and opens it.
//!
//! # Life of a driver
//! 1. [`FunctionAddress::open`] connects and turns on memory access and bus mastering.
//! 2. [`capability::find`] and [`capability::find_extended`] locate what the driver needs in configuration space.
//! 3. [`Device::bar`] gives [`Registers`]: mapped where the device allows it, by messages otherwise.
//! 4. [`Device::alloc_dma`] gives [`DmaBuffer`]s. Their addresses for the device are [`DmaBuffer::iova`].
//! 5. [`Device::interrupt`] gives an [`Interrupt`] per MSI-X vector, to wait on or to put into a poll loop.
//! 6. Dropping a buffer takes it away from the device; dropping the device closes the function, which resets it.
//!
//! The device is trusted no more than it must be: what it writes into DMA memory is only ever read through bounded,
//! atomic accessors, every wait has a time-out, and lengths that it reports are checked.

#![deny(unsafe_code)]

pub mod capability;
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
mod registers;
mod sriov;
pub mod vfio_user;

pub use device::{Device, FunctionAddress, VfHandle};
pub use dma::{DmaBuffer, PageKind};
pub use error::{Error, Result};
pub use ids::name_of;
pub use interrupt::Interrupt;
pub use registers::Registers;
