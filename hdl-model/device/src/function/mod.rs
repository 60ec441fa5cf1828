//! The board's PCIe functions, each behind a vfio-user socket: the PF with SR-IOV, and its VFs.
//!
//! # What the board does with them
//!
//! 1. [`PfPort::new`] makes the PF's PCI side: its DMA memory ([`PfPort::memory`]) and interrupts
//!    ([`PfPort::interrupt`]), which the queue engine uses for the PF rings.
//! 2. The board implements [`Registers`]: BAR 0, and handlers of resets, VFs and the driver.
//! 3. [`Pf::start`] listens on the PF's socket.
//! 4. The driver sets NumVFs and VF Enable; one socket per VF appears, named as the PF's with `.vf0`, `.vf1` and so on
//!    appended ([`vf_socket`]), and [`Registers::vfs_changed`] gets their devices. When VF Enable is cleared, at a reset
//!    of the PF and when [`Pf`] is dropped, the board is told that there are none, live connections end and the sockets
//!    vanish.
//!
//! A VF's configuration space is what the kernel's VFIO would show a guest: vendor, device and BARs in the header, where
//! a VF on the bus has all-ones and none (PCIe 6.0 section 9.3.4).

#![forbid(unsafe_code)]

mod pf;
mod vf;

pub use pf::{Pf, PfConfig, PfPort, Registers, vf_socket};
pub use vf::{VF_IDENTITY, Vf};
