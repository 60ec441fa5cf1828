//! The board's PCIe functions from outside: the vfio-user protocol, configuration space, SR-IOV, virtqueues, DMA.

mod address_space;
mod budget;
mod client;
mod driver;
mod fault;
#[path = "../../../../dataplane/virtio/tests/files/fuse.rs"]
mod fuse;
mod interop;
mod interrupts;
mod intx;
mod memory;
mod protocol;
mod remote;
mod restarted;
mod sriov;
mod unshared;
mod virtqueue;
