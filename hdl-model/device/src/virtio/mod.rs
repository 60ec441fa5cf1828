//! The virtio-net half of a VF: virtio 1.2 over PCI, split virtqueues, seen from the board's queue engine.
//!
//! # What the queue engine calls
//!
//! A VF's data path is one [`NetDevice`], shared as `Arc<NetDevice>` between the VF's vfio-user thread (registers) and
//! the engine's thread (rings). All methods take `&self` and return at once; none panics on anything a guest does.
//!
//! 1. The guest's driver kicks: the eventfd that all functions share ([`Notifier`]) becomes readable. The engine clears it
//!    with [`Notifier::clear`] and looks at every device.
//! 2. [`NetDevice::service_control`] answers control commands; without a pending kick it costs one atomic load.
//! 3. While [`NetDevice::has_tx`], [`NetDevice::tx_pop`] copies one frame (without the virtio header) into a buffer of
//!    the engine, completes the descriptor and returns its length and checksum state. `None` means the ring is empty,
//!    the queue is stopped or the burst met only frames that were dropped and counted. The engine bounds its burst.
//! 4. [`NetDevice::rx_push`] writes one frame, given in up to two pieces or more, into receive buffers.
//! 5. Once a burst, [`NetDevice::flush_interrupts`] sends at most one interrupt per queue, if the driver wants it.
//! 6. While the engine polls, [`NetDevice::set_polling`]`(true)` asks the driver not to kick; before it sleeps it calls
//!    `set_polling(false)` and then looks at `has_tx` once more, so that no kick is lost.
//!
//! ```text
//! NetDevice::has_tx(&self) -> bool
//! NetDevice::tx_pop(&self, buf: &mut [u8]) -> Option<TxFrame>
//! NetDevice::rx_push(&self, parts: &[&[u8]], verified: bool) -> Result<(), RxError>
//! NetDevice::service_control(&self)
//! NetDevice::flush_interrupts(&self)
//! NetDevice::set_polling(&self, polling: bool)
//! NetDevice::is_running(&self) -> bool            // DRIVER_OK, both data queues enabled, no fault
//! NetDevice::counters(&self) -> Counters          // frames and bytes each way, discards, faults
//! NetDevice::take_discards(&self), take_faults(&self)  // by reason, since the last call: into the board's counters
//! NetDevice::config(&self) -> VfConfig;  NetDevice::set_config(&self, VfConfig)  // tells the guest
//! NetDevice::rx_mode(&self) -> RxMode             // what the guest asked of its filters, as far as allowed
//! Notifier::new() -> io::Result<Notifier>;  Notifier::notify(&self);  Notifier::clear(&self);  Notifier: AsFd + Clone
//! ```
//!
//! # What a hostile guest can do
//!
//! Stop its own queue, and nothing else. Descriptors are read once into our memory and checked there; an index out of
//! range, a loop, an address outside what was mapped or a memory file that shrank is a [`RingFault`]: it is counted, the
//! queue stops, the device asks for a reset (`DEVICE_NEEDS_RESET`) and other devices keep running. A bad frame (no room for the
//! header, too long, nonsense checksum offsets, segmentation that was not offered) is a [`Discard`]: it is counted and its
//! descriptor completed. [`Discard`], [`RxError`] and [`RingFault`] each name the board-wide
//! [`Reason`](culvert_packet::Reason) that they count under.

#![forbid(unsafe_code)]

mod capabilities;
mod chains;
mod config;
mod control;
mod counters;
mod datapath;
mod device;
mod features;
mod message_thread;
mod messaged;
mod notifier;
mod registers;
mod slot;
mod window;

pub use config::{Checksum, Delivery, Discard, RxError, TxBudget, TxFrame, VfConfig, VlanPolicy};
pub use control::RxMode;
pub use counters::{Counters, Late};
pub use device::{NetDevice, VIRTIO_BAR};
pub use notifier::Notifier;

pub use culvert_virtio::RingFault;
