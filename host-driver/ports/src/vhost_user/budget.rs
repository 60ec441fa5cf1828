//! What one call may take of a thread's time: guests that share the thread wait meanwhile.

use culvert_switch::BURST;

/// Descriptors that one call may read from a guest. An ordinary burst has 32 to 64, one of large frames at most 18 each; a
/// driver may chain as many as its ring has for each frame, 8,192 in a burst, and reading one costs about as much as a small
/// frame.
const RX_DESCRIPTORS: usize = 16 * BURST;

/// Bytes that one call may copy from a guest: eight of the largest frames, some 50 to 100 us. More of them in a burst would
/// save nothing, as the copy is nearly all of the work.
const RX_BYTES: usize = 8 << 16;

/// Descriptors of receive buffers that one call may use for a frame of a burst, on average: 64 KiB in buffers of 1 KiB, where
/// Linux and DPDK post at least 1.5 KiB. A guest whose buffers are smaller loses what does not fit.
const TX_DESCRIPTORS: usize = 64;

/// What is left for one call on a port, on all its vrings. A chain that goes beyond it is still finished, so that each guest
/// advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    descriptors: usize,
    bytes: usize,
}

impl Budget {
    /// For frames that a guest has sent.
    pub(super) fn receive() -> Self {
        Budget { descriptors: RX_DESCRIPTORS, bytes: RX_BYTES }
    }

    /// For this many frames to a guest. Their bytes are limited already: they lie in our buffers.
    pub(super) fn send(frames: usize) -> Self {
        Budget { descriptors: frames.saturating_mul(TX_DESCRIPTORS), bytes: usize::MAX }
    }

    /// Whether the next chain may be begun.
    #[inline]
    pub(super) fn is_left(self) -> bool {
        self.descriptors > 0 && self.bytes > 0
    }

    /// Uses up some of it.
    #[inline]
    pub(super) fn take(&mut self, descriptors: usize, bytes: usize) {
        self.descriptors = self.descriptors.saturating_sub(descriptors);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
