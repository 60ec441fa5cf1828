//! What crosses PCIe and the SoC bus, defined once for driver, firmware and device model.
//!
//! * [`pci`]: identities of the physical function.
//! * [`regs`]: the register map of BAR0, mailbox included.
//! * [`pf`]: rings in host memory between driver and board.
//! * [`soc`]: rings and control block in SoC memory between board and firmware, and the map of that memory.
//! * [`command`]: operations that travel in the descriptors of both.
//! * [`image`]: the header of a firmware image.
//!
//! Everything is little-endian; every shared word has one writer. Sizes and offsets are asserted where they are
//! defined; [`VERSION`] changes with any of them. The flow record itself is `culvert_flow::record`.
#![no_std]
#![forbid(unsafe_code)]

pub mod command;
pub mod image;
mod offload;
pub mod pci;
pub mod pf;
pub mod regs;
pub mod soc;

pub use culvert_flow::record::{FlowCold, FlowHot, FlowKey, FlowRecord};
pub use culvert_flow::tables::{Group, Peer, Tunnel, Vport};

/// Version of everything in this crate and of the flow record. Driver, board and firmware refuse another.
pub const VERSION: u32 = 2;
