//! What a driver or its VMM got wrong: faults of memory and of rings.

use culvert_packet::Reason;

/// Why an access to a guest's memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum MemoryFault {
    /// Part of the range is not mapped.
    #[error("an address is not mapped")]
    Unmapped,
    /// Mapped without the right to do this.
    #[error("an address is mapped without the right to this access")]
    Denied,
    /// The file behind the memory has become shorter than what was mapped.
    #[error("the file behind the memory has shrunk")]
    Shrunk,
    /// A word that must be accessed whole is not aligned.
    #[error("an address is not aligned")]
    Misaligned,
    /// The memory has no file: only messages to its owner reach it, or its owner did not carry the access out.
    #[error("the memory's owner failed the access")]
    Remote,
}

/// What stopped a driver's ring, until the ring is set up anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// The available index moved by more than the ring's size, or backwards.
    #[error("the available index jumped")]
    AvailableIndex,
    /// A descriptor index that its table does not have.
    #[error("a descriptor index is out of range")]
    DescriptorIndex,
    /// A chain longer than the ring: it loops.
    #[error("a descriptor chain loops")]
    Loop,
    /// An indirect descriptor that was not offered, is not whole, or is in the wrong place.
    #[error("an indirect descriptor is wrong")]
    Indirect,
    /// A buffer for the device to read follows one for it to write.
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// A buffer without the room that its queue needs for a header, or in too many pieces.
    #[error("a buffer is too short for the queue's header")]
    ShortBuffer,
    /// The ring's size, alignment or place is what virtio forbids.
    #[error("the ring was set up wrongly")]
    Setup,
    /// The ring or a buffer lies where it may not be accessed.
    #[error("memory access failed: {0}")]
    Memory(#[from] MemoryFault),
}

impl RingFault {
    /// Number of kinds.
    pub const COUNT: usize = 12;
    /// All kinds, in the order of their counters.
    pub const ALL: [RingFault; Self::COUNT] = [
        Self::AvailableIndex,
        Self::DescriptorIndex,
        Self::Loop,
        Self::Indirect,
        Self::Order,
        Self::ShortBuffer,
        Self::Setup,
        Self::Memory(MemoryFault::Unmapped),
        Self::Memory(MemoryFault::Denied),
        Self::Memory(MemoryFault::Shrunk),
        Self::Memory(MemoryFault::Misaligned),
        Self::Memory(MemoryFault::Remote),
    ];

    /// The kind's place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        match self {
            Self::AvailableIndex => 0,
            Self::DescriptorIndex => 1,
            Self::Loop => 2,
            Self::Indirect => 3,
            Self::Order => 4,
            Self::ShortBuffer => 5,
            Self::Setup => 6,
            Self::Memory(fault) => 7 + fault as usize,
        }
    }

    /// The kind's word in counters and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AvailableIndex => "available_index",
            Self::DescriptorIndex => "descriptor_index",
            Self::Loop => "loop",
            Self::Indirect => "indirect",
            Self::Order => "order",
            Self::ShortBuffer => "short_buffer",
            Self::Setup => "setup",
            Self::Memory(MemoryFault::Unmapped) => "unmapped",
            Self::Memory(MemoryFault::Denied) => "denied",
            Self::Memory(MemoryFault::Shrunk) => "shrunk",
            Self::Memory(MemoryFault::Misaligned) => "misaligned",
            Self::Memory(MemoryFault::Remote) => "remote",
        }
    }

    /// The reason under which it is reported.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Memory(_) => Reason::DmaFault,
            _ => Reason::BadDescriptor,
        }
    }
}
