//! A guest's receive buffers: chosen for one frame, filled, and given back.

use crate::chain::{Chain, Segment, total_len};
use crate::copy::scatter;
use crate::fault::RingFault;
use crate::parts::RingMemory;
use crate::ring::Ring;

/// Segments for one received frame: a guest that splits its buffers into crumbs does not slow its neighbours down.
const MAX_SEGMENTS: usize = 1024;

/// Whether buffers were found for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// They were.
    Done,
    /// The guest has not made enough buffers available.
    Full,
    /// The guest's buffer is shorter than the frame, and the guest takes no frame in several.
    TooLong,
}

/// Receive buffers of one frame. Reused from frame to frame.
#[derive(Debug, Default)]
pub struct ReceiveBuffers {
    chain: Chain,
    segments: Vec<Segment>,
    /// Head of each chain, and the bytes it takes.
    used: Vec<(u16, u32)>,
    descriptors: usize,
}

impl ReceiveBuffers {
    /// Chooses buffers for `len` bytes, of which the first `header_len` are the header. `mergeable`: the frame may lie in
    /// several buffers. Consumes nothing.
    ///
    /// # Errors
    /// What is wrong with the ring or its buffers.
    pub fn reserve(
        &mut self,
        ring: &mut Ring,
        memory: &impl RingMemory,
        header_len: usize,
        len: usize,
        mergeable: bool,
    ) -> Result<Reserved, RingFault> {
        let mut left = len as u64;
        self.segments.clear();
        self.used.clear();
        self.descriptors = 0;
        while left > 0 {
            let skip = self.used.len() as u16;
            if !ring.is_waiting(memory, skip)? {
                return Ok(Reserved::Full);
            }
            let head = ring.peek(memory, skip, &mut self.chain)?;
            let room = total_len(self.chain.writable());
            self.descriptors += self.chain.writable().len();
            // virtio 1.2 section 5.1.6.3.1: the header is not split over buffers
            if room < header_len as u64 || self.segments.len() + self.chain.writable().len() > MAX_SEGMENTS {
                return Err(RingFault::ShortBuffer);
            }
            if !mergeable && room < left {
                return Ok(Reserved::TooLong);
            }
            let take = room.min(left);
            self.used.push((head, take as u32));
            // All but the last are filled.
            for Segment { address, len } in self.chain.writable() {
                // Word by word, as they have just been written: a wider read would wait until the writes before them, to
                // lines of the guest's core, are done.
                self.segments.push(Segment { address: *address, len: *len });
            }
            left -= take;
        }
        Ok(Reserved::Done)
    }

    /// Number of buffers that were chosen, for the frame's header.
    pub fn count(&self) -> u16 {
        self.used.len() as u16
    }

    /// Number of descriptors of the buffers that were looked at for the frame.
    pub fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// Writes the frame, header first, into the buffers that were chosen and gives them back. The guest sees it once the
    /// ring is published.
    ///
    /// # Errors
    /// A buffer or the ring may not be written.
    pub fn fill<'p>(
        &self,
        ring: &mut Ring,
        memory: &impl RingMemory,
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<(), RingFault> {
        scatter(memory, &self.segments, pieces)?;
        ring.complete(memory, &self.used)
    }
}
