//! The emulated NIC's hardware as a process: PCIe functions behind vfio-user sockets, their DMA, their queues, and the
//! board behind them.

pub mod board;
pub mod dma;
pub mod function;
pub mod pci;
pub mod soc;
pub mod vfio_user;
pub mod virtio;
pub mod wire;
