//! A packet in its buffer.

use std::fmt;

use culvert_flow::{Checksum, Frame, Port};
use culvert_packet::segment::Segmentation;
use culvert_packet::{Gso, Offload, prefetch_to_write};

/// Bytes in front of a received frame: room for outer headers and a VLAN tag.
pub const HEADROOM: usize = 128;
/// Size of a common buffer.
pub const BUFFER: usize = 2048;
/// Size of a buffer for frames that are segmented on the way out.
pub const LARGE_BUFFER: usize = HEADROOM + (1 << 16);

/// A packet, which owns its buffer. Give it to a [`Pool`](crate::Pool) when done: a dropped packet loses its buffer.
#[must_use = "its buffer goes back to the pool"]
pub struct Packet {
    pub(super) buffer: &'static mut [u8],
    /// The number by which it waits for the decision on its flow.
    pub(super) number: u32,
    pub(super) start: u32,
    pub(super) len: u32,
    /// Number of the pool that owns the buffer.
    pub(super) owner: u8,
    /// The port that it arrived at.
    pub input: Port,
    /// State of its outer UDP checksum.
    pub checksum: Checksum,
    /// State of its transport checksum, and how it is to be segmented.
    pub offload: Offload,
}

impl Packet {
    /// The frame.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start as usize..(self.start + self.len) as usize).unwrap_or_default()
    }

    /// Prefetches the cache lines of outer and inner headers for writing: another core has them.
    #[inline]
    pub(super) fn prefetch(&self) {
        for at in [0, 64] {
            self.bytes().get(at).into_iter().for_each(prefetch_to_write);
        }
    }

    /// Prefetches the cache lines that the headers of the next frame will be written to: another core has them.
    #[inline]
    pub(super) fn prefetch_room(&self) {
        for at in [HEADROOM, HEADROOM + 64] {
            self.buffer.get(at).into_iter().for_each(prefetch_to_write);
        }
    }

    /// The frame, mutable.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start as usize..(self.start + self.len) as usize).unwrap_or_default()
    }

    /// Room for a received frame, behind the headroom.
    #[inline(always)]
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(HEADROOM..).unwrap_or_default()
    }

    /// Says that the frame lies in [`room`](Self::room) from byte `from` on and is `len` bytes long. `false`: it does not fit.
    #[inline(always)]
    #[must_use]
    pub fn set(&mut self, from: usize, len: usize) -> bool {
        let fits = from <= self.buffer.len() - HEADROOM && len <= self.buffer.len() - HEADROOM - from;
        if fits {
            (self.start, self.len) = ((HEADROOM + from) as u32, len as u32);
        }
        fits
    }

    /// Copies `frame` into the buffer. `false`: it is too long.
    #[must_use]
    pub fn fill(&mut self, frame: &[u8]) -> bool {
        let fits = self.set(0, frame.len());
        if fits {
            self.bytes_mut().copy_from_slice(frame);
        }
        fits
    }

    /// Puts `bytes` in front of the frame. `false`, and nothing changes, if there is no headroom.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = (self.start as usize).checked_sub(bytes.len()) else { return false };
        self.buffer[start..start + bytes.len()].copy_from_slice(bytes);
        (self.start, self.len) = (start as u32, self.len + bytes.len() as u32);
        true
    }

    /// Length of the longest segment; 0: the frame is not to be segmented.
    #[inline(always)]
    fn unit(&self) -> usize {
        if self.offload.gso == Gso::None { 0 } else { self.segments().map_or(0, |s| s.longest()) }
    }

    /// How it is to be segmented.
    #[cold]
    pub fn segments(&self) -> Option<Segmentation> {
        Segmentation::of(self.bytes(), &self.offload)
    }

    /// Lets the core edit the frame, in place.
    #[inline(always)]
    pub fn edit<T>(&mut self, work: impl FnOnce(&mut Frame<'_>) -> T) -> Option<T> {
        let unit = self.unit();
        let mut frame = Frame::new(self.buffer, self.start as usize, self.len as usize)?.in_units(unit);
        let result = work(&mut frame);
        let (start, len) = (frame.start() as u32, frame.len() as u32);
        (self.start, self.len) = (start, len);
        Some(result)
    }
}

impl Packet {
    /// An empty buffer of pool `owner`.
    pub(super) fn new(buffer: &'static mut [u8], owner: u8) -> Self {
        Packet {
            buffer,
            number: 0,
            start: HEADROOM as u32,
            len: 0,
            owner,
            input: Port::None,
            checksum: Checksum::Unknown,
            offload: Offload::default(),
        }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet from {:?}, {} bytes", self.input, self.len)
    }
}
