//! The host's side of the rings of `culvert_abi::pf`: queue 0 to the NIC, and the queues to the host.
//!
//! It depends only on DMA memory, not on a device: the tests play the board on the same memory.

use std::sync::atomic::{Ordering, fence};

use culvert_abi::pf::{
    Entry, HOST_INDEX, HOST_SLEEPS, MAX_PAYLOAD, NIC_INDEX, NIC_SLEEPS, RING_HEADER, ring_len,
};
use culvert_pci::DmaBuffer;
use zerocopy::{FromBytes, IntoBytes};

use crate::{Error, Result};

/// Bytes of a ring's packet buffer. Each holds one frame or payload.
pub const RING_BUFFER: usize = 2048;
const ENTRY: usize = size_of::<Entry>();

/// Bytes of DMA memory for a ring and for its buffers.
pub(crate) fn memory_len(size_log2: u32) -> (usize, usize) {
    (ring_len(size_log2) as usize, RING_BUFFER << size_log2)
}

/// A ring and its buffers in DMA memory, for either direction.
struct RingMemory {
    ring: DmaBuffer,
    buffers: DmaBuffer,
    size: u32,
    queue: usize,
}

impl RingMemory {
    fn load(&self, word: u64) -> u32 {
        u32::from_le(self.ring.atomic_u32(word as usize).load(Ordering::Acquire))
    }

    fn store(&self, word: u64, value: u32) {
        self.ring.atomic_u32(word as usize).store(value.to_le(), Ordering::Release);
    }

    fn position(&self, index: u32) -> usize {
        (index % self.size) as usize
    }

    fn write_entry(&self, index: u32, entry: &Entry) -> Result<()> {
        let at = RING_HEADER as usize + self.position(index) * ENTRY;
        Ok(self.ring.write_at(at, entry.as_bytes())?)
    }

    fn buffer_iova(&self, index: u32) -> u64 {
        self.buffers.iova() + (self.position(index) * RING_BUFFER) as u64
    }

    fn fault(&self) -> Error {
        Error::QueueFault { device: format!("ring at {:#x}", self.ring.iova()), queue: self.queue }
    }
}

/// Queue 0: commands and frames to the NIC. Buffer `i` of the ring belongs to entry `i`.
pub struct HostToNic {
    memory: RingMemory,
    /// Entries written.
    produced: u32,
}

impl HostToNic {
    /// An empty ring of `1 << size_log2` entries in zeroed memory.
    pub fn new(ring: DmaBuffer, buffers: DmaBuffer, size_log2: u32, queue: usize) -> Self {
        HostToNic { memory: RingMemory { ring, buffers, size: 1 << size_log2, queue }, produced: 0 }
    }

    /// How many entries can be written now.
    ///
    /// # Errors
    /// The board's index is impossible.
    pub fn room(&self) -> Result<u32> {
        self.used().map(|used| self.memory.size - used)
    }

    /// How many written entries the board has not taken yet.
    ///
    /// # Errors
    /// The board's index is impossible.
    pub fn used(&self) -> Result<u32> {
        let used = self.produced.wrapping_sub(self.memory.load(NIC_INDEX));
        if used <= self.memory.size { Ok(used) } else { Err(self.memory.fault()) }
    }

    /// Writes an entry whose payload is these pieces. `false`: the ring is full. The board sees it after the next
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    /// The payload is too long, or the board's index is impossible.
    pub fn push(&mut self, entry: &Entry, payload: &[&[u8]]) -> Result<bool> {
        let len: usize = payload.iter().map(|p| p.len()).sum();
        if len > MAX_PAYLOAD as usize {
            return Err(Error::TooLong { len, limit: MAX_PAYLOAD as usize });
        }
        if self.room()? == 0 {
            return Ok(false);
        }
        let mut at = self.memory.position(self.produced) * RING_BUFFER;
        for piece in payload {
            self.memory.buffers.write_at(at, piece)?;
            at += piece.len();
        }
        let entry = Entry { addr: self.memory.buffer_iova(self.produced), len: len as u32, ..*entry };
        self.memory.write_entry(self.produced, &entry)?;
        self.produced = self.produced.wrapping_add(1);
        Ok(true)
    }

    /// Publishes the written entries. `true`: the board sleeps, ring the queue's doorbell.
    pub fn publish(&mut self) -> bool {
        if self.memory.load(HOST_INDEX) == self.produced {
            return false;
        }
        self.memory.store(HOST_INDEX, self.produced);
        fence(Ordering::SeqCst);
        self.memory.load(NIC_SLEEPS) != 0
    }
}

/// A queue to the host: upcalls, completions, captured packets or a VMQ.
pub struct NicToHost {
    memory: RingMemory,
    /// Entries taken.
    consumed: u32,
    /// Entries posted to the board with an empty buffer.
    posted: u32,
}

impl NicToHost {
    /// A ring of `1 << size_log2` entries in zeroed memory, with all buffers posted.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn new(ring: DmaBuffer, buffers: DmaBuffer, size_log2: u32, queue: usize) -> Result<Self> {
        let memory = RingMemory { ring, buffers, size: 1 << size_log2, queue };
        let mut new = NicToHost { memory, consumed: 0, posted: 0 };
        for index in 0..new.memory.size {
            new.write_posted(index)?;
        }
        new.posted = new.memory.size;
        new.memory.store(HOST_INDEX, new.posted);
        Ok(new)
    }

    fn write_posted(&self, index: u32) -> Result<()> {
        let addr = self.memory.buffer_iova(index);
        self.memory.write_entry(index, &Entry { addr, len: RING_BUFFER as u32, ..Entry::default() })
    }

    /// Takes the oldest entry and copies its bytes to the front of `into`. `None`: the ring is empty.
    ///
    /// # Errors
    /// The board's index is impossible.
    pub fn pop<'b>(&mut self, into: &'b mut [u8; RING_BUFFER]) -> Result<Option<(Entry, &'b [u8])>> {
        let filled = self.memory.load(NIC_INDEX).wrapping_sub(self.consumed);
        if filled > self.posted.wrapping_sub(self.consumed) {
            return Err(self.memory.fault());
        }
        if filled == 0 {
            return Ok(None);
        }
        let position = self.memory.position(self.consumed);
        let mut bytes = [0; ENTRY];
        self.memory.ring.read_at(RING_HEADER as usize + position * ENTRY, &mut bytes)?;
        let Ok(entry) = Entry::read_from_bytes(&bytes) else { return Err(self.memory.fault()) };
        // The board's length is not trusted beyond the buffer.
        let len = (entry.len as usize).min(RING_BUFFER);
        let data = &mut into[..len];
        self.memory.buffers.read_at(position * RING_BUFFER, data)?;
        self.consumed = self.consumed.wrapping_add(1);
        Ok(Some((Entry { len: len as u32, ..entry }, data)))
    }

    /// Returns the buffers of all taken entries to the board. `true`: the board ran out of buffers and sleeps, ring the
    /// doorbell.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn repost(&mut self) -> Result<bool> {
        let before = self.posted;
        let all = self.consumed.wrapping_add(self.memory.size);
        if before == all {
            return Ok(false);
        }
        while self.posted != all {
            self.write_posted(self.posted)?;
            self.posted = self.posted.wrapping_add(1);
        }
        self.memory.store(HOST_INDEX, self.posted);
        fence(Ordering::SeqCst);
        Ok(self.memory.load(NIC_INDEX) == before && self.memory.load(NIC_SLEEPS) != 0)
    }

    /// Enables the queue's interrupt. `false`: an entry has arrived meanwhile, and the interrupt stays disabled.
    pub fn arm(&self) -> bool {
        self.memory.store(HOST_SLEEPS, 1);
        fence(Ordering::SeqCst);
        if self.memory.load(NIC_INDEX) == self.consumed {
            return true;
        }
        self.disarm();
        false
    }

    /// Disables the queue's interrupt.
    pub fn disarm(&self) {
        self.memory.store(HOST_SLEEPS, 0);
    }
}

#[cfg(test)]
mod tests;
