//! What the firmware does with the descriptors that the board hands it.
//!
//! A packet: [`Firmware::poll`] takes its descriptor from the [`Bus`]; `fast_path.rs` or else `packet.rs` runs the core on
//! it; `send.rs` and `replicate.rs` make descriptors for the board. A command of the host: `command.rs`. The mailbox, at
//! bring-up: `mailbox.rs`. Nothing here depends on RISC-V or QEMU: the image connects this to its rings, and tests run it
//! on the host.
#![no_std]
#![forbid(unsafe_code)]

mod bus;
mod command;
mod fast_path;
mod firmware;
mod mailbox;
mod packet;
mod payload;
mod poll;
mod replicate;
mod send;

pub use bus::Bus;
pub use firmware::{Firmware, Memory};
