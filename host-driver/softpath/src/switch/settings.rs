//! What a switch is started with.

use culvert_abi::soc::Sizes;
use culvert_flow::HashSecret;

use super::exceptions::LENGTH as QUEUE;

/// What a switch is started with.
#[derive(Clone, Debug)]
pub struct SwitchSettings {
    /// Entries of its tables; each worker has such tables.
    pub sizes: Sizes,
    /// Packet buffers of 2 KiB, for each worker.
    pub buffers: usize,
    /// Packet buffers of 64 KiB, for frames that are yet to be segmented, for each worker.
    pub large_buffers: usize,
    /// Secret of the flow hash.
    pub secret: HashSecret,
    /// Its workers, at most [`MAX_WORKERS`](Self::MAX_WORKERS): each a thread, with the processor that it stays on; none:
    /// the system chooses.
    pub workers: Vec<Option<usize>>,
}

impl SwitchSettings {
    /// How many workers there may be.
    pub const MAX_WORKERS: usize = 64;

    /// One worker for so many flow records, a power of two, with 64 MiB for packets.
    pub fn new(flows: u32, secret: HashSecret) -> Self {
        // As many flows may be undecided as there is room for packets on their way to the slow path.
        let sizes = Sizes { flows, pending: QUEUE as u32, ..Sizes::new(0) };
        SwitchSettings { sizes, buffers: 16_384, large_buffers: 512, secret, workers: vec![None] }
    }
}
