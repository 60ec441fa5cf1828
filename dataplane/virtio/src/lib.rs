//! The device side of split virtqueues (virtio 1.2, 2.7), and a guest's memory.
//!
//! The emulated board's VFs and the vhost-user port are both built on it:
//!
//! * [`AddressSpace`] is a guest's memory: regions of [`MappedFile`]s, or of memory that only messages to its owner reach.
//!   Accesses are bounded copies, since the guest may change any byte at any time. A memory file that its owner shortens
//!   costs the access ([`MemoryFault::Shrunk`]) and not the process. [`SharedSpace`] is one that changes while it is used.
//! * [`Ring`] is the state of a split virtqueue. It reaches its parts through [`RingMemory`]: [`PinnedParts`] were looked up
//!   once, in memory that stays mapped while the ring runs; [`IovaParts`] are looked up at each access, in memory that may
//!   be unmapped between two bursts.
//! * [`EventSignal`] interrupts a guest by an eventfd that its VMM may have filled, without waiting.
//! * [`gather`] copies a frame out of a [`Chain`], [`ReceiveBuffers`] chooses a guest's buffers for a frame and fills them.
//!
//! A guest, its driver and its VMM are not trusted. Every index, descriptor and address is copied once and checked before
//! use; what is wrong with them is a [`RingFault`], after which the ring must not be touched until it is set up anew.
//!
//! ```
//! use culvert_virtio::{AddressSpace, Chain, IovaParts, Layout, MemoryFault, Options, Ring, RingFault};
//!
//! let memory = AddressSpace::new();
//! let layout = Layout { size: 256, descriptors: 0x1000, available: 0x2000, used: 0x3000 };
//! layout.check(1024)?;
//! let mut ring = Ring::new(layout.size, Options::default(), 0);
//! let parts = IovaParts::new(&memory, &layout);
//! // Nothing is mapped yet: the ring's first access says so.
//! assert_eq!(ring.waiting(&parts), Err(RingFault::Memory(MemoryFault::Unmapped)));
//! # Ok::<(), RingFault>(())
//! ```

#![deny(unsafe_code)]

mod chain;
mod copy;
mod fault;
pub mod feature;
mod layout;
mod memory;
mod parts;
mod receive;
mod ring;
mod signal;

pub use chain::{Chain, Segment, total_len};
pub use copy::{gather, scatter};
pub use fault::{MemoryFault, RingFault};
pub use layout::Layout;
pub use memory::{
    AddressSpace, FileInfo, GuestMemory, MAX_MAPPED, MAX_MAPPINGS, MapError, MappedFile, MemoryShare,
    PAGE_SIZE, Place, Region, RegionError, SharedSpace, SpaceChange, SpaceView, WordMemory,
};
pub use parts::{IovaParts, Part, PinnedParts, RingMemory};
pub use receive::{ReceiveBuffers, Reserved};
pub use ring::{Options, Ring};
pub use signal::{EventSignal, SignalError, check_eventfd, signal_all};
