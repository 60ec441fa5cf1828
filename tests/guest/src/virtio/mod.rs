//! A virtio-net driver, virtio 1.2 over PCI with split virtqueues, as any guest system has one.
//!
//! [`SplitQueue`] is the ring alone, without a device. [`Transport`] finds the device's structures through its PCI
//! capabilities and brings it up. [`VirtioNet`] is the network driver on both.

mod net;
mod queue;
mod transport;

pub use net::{NetOptions, VirtioNet};
pub use queue::{SplitQueue, Used};
pub use transport::{Notify, Transport, feature};
