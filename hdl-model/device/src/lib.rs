//! The emulated NIC's hardware as a process: PCIe functions behind vfio-user sockets, their DMA, their queues, and the
//! board behind them.

#![forbid(unsafe_code)]

pub use culvert_soc as soc;
pub use culvert_wire as wire;

pub mod board;
pub mod dma;
pub mod function;
pub mod pci;
pub mod vfio_user;
pub mod virtio;
