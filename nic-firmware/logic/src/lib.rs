//! What the firmware does with the descriptors that the board hands it.
//!
//! A packet: [`Firmware::poll`] takes its descriptor from the [`Bus`], `packet.rs` runs the core on it and says where it
//! goes. A command of the host: `command.rs`. The mailbox, at bring-up: `mailbox.rs`. Nothing here knows of RISC-V or of
//! QEMU: the image only wires this to its rings, and tests run it on the host.
#![no_std]
#![forbid(unsafe_code)]

mod bus;
mod command;
mod firmware;
mod mailbox;
mod packet;
mod payload;

pub use bus::Bus;
pub use firmware::{Firmware, Memory};
