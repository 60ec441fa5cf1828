//! One client's share of what all clients of a process map their memory into.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::io::Errno;

/// Files, or parts of them, that a client may have mapped at once. QEMU needs one for each RAM block, 2 to 8; a front end of
/// vhost-user may have 32, and as many again while it exchanges them.
pub const MAX_MAPPINGS: usize = 128;

/// Bytes that a client may have mapped at once, 1.25 TiB: room for a VM of 1 TiB, while 100 clients leave a part of a
/// process's address space of 47 bits, 128 TiB, to everybody else.
pub const MAX_MAPPED: u64 = 5 << 38;

/// Why a client's memory is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Its pages are not in memory: an access could wait for a disk, or for ever for a file server of the client's.
    #[error(
        "the file is not in memory: give a memfd (QEMU: memory-backend-memfd,share=on), or a file in tmpfs or hugetlbfs"
    )]
    NotInMemory,
    /// The range reaches beyond the file's end, or is empty.
    #[error("the range is empty or reaches beyond the end of its file")]
    OutOfRange,
    /// See [`MAX_MAPPINGS`].
    #[error(
        "the client has {MAX_MAPPINGS} mappings, as many as a client may have: use fewer and larger memory blocks"
    )]
    TooManyMappings,
    /// See [`MAX_MAPPED`].
    #[error("the client would have more than {} GiB mapped, which is a client's share", MAX_MAPPED >> 30)]
    TooManyBytes,
    /// All clients together have as many mappings as the process can guard.
    #[error(
        "all clients together have {0} mappings, as many as this process can guard: serve fewer VMs on this host"
    )]
    ProcessLimit(usize),
    /// The system's own error.
    #[error("the memory cannot be mapped: {0}")]
    System(#[from] Errno),
}

/// What a client has mapped, in all its regions.
#[derive(Debug, Default)]
pub struct MemoryShare {
    mappings: AtomicUsize,
    bytes: AtomicU64,
}

impl MemoryShare {
    /// Nothing mapped.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Number of mappings.
    pub fn mappings(&self) -> usize {
        self.mappings.load(Ordering::Acquire)
    }

    /// Bytes of all mappings.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Takes room for a mapping.
    pub(super) fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge, MapError> {
        // Given back on drop, also when the second step fails.
        let charge = |bytes| Charge { share: Arc::clone(self), bytes };
        if self.mappings.fetch_add(1, Ordering::AcqRel) >= MAX_MAPPINGS {
            drop(charge(0));
            return Err(MapError::TooManyMappings);
        }
        let fits = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= MAX_MAPPED);
        if self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_err() {
            drop(charge(0));
            return Err(MapError::TooManyBytes);
        }
        Ok(charge(bytes))
    }
}

/// A part of a share, given back on drop.
#[derive(Debug)]
pub(super) struct Charge {
    share: Arc<MemoryShare>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.share.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.share.mappings.fetch_sub(1, Ordering::AcqRel);
    }
}
