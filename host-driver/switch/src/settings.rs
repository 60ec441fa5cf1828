//! Settings of a switch.

use culvert_flow::{HashSecret, TableSizes};

use crate::upcall_queue::PENDING;

/// What a switch is started with.
#[derive(Clone, Debug)]
pub struct SwitchSettings {
    /// Table sizes of each worker.
    pub sizes: TableSizes,
    /// Packet buffers of 2 KiB, for each worker.
    pub buffers: usize,
    /// Packet buffers of 64 KiB for frames that are segmented on the way out, for each worker.
    pub large_buffers: usize,
    /// Secret of the flow hash.
    pub secret: HashSecret,
    /// The workers, at most [`MAX_WORKERS`](Self::MAX_WORKERS): for each, the processor that its thread is pinned to, if any.
    pub workers: Vec<Option<usize>>,
}

impl SwitchSettings {
    /// How many workers there may be.
    pub const MAX_WORKERS: usize = 64;
    /// Flow records of each worker of a host, unless its operator chooses otherwise.
    pub const DEFAULT_FLOWS: u32 = 1 << 20;
    /// The largest flow table of a worker: twice the two million records that the design asks for.
    pub const MAX_FLOWS: u32 = 1 << 22;

    /// One worker with so many flow records, a power of two, and 64 MiB for packets.
    pub fn new(flows: u32, secret: HashSecret) -> Self {
        let sizes = TableSizes { flows, pending: PENDING, ..TableSizes::new(0) };
        SwitchSettings { sizes, buffers: 16_384, large_buffers: 512, secret, workers: vec![None] }
    }
}
