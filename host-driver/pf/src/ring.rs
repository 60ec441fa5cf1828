//! The host's side of the rings of `culvert_abi::pf`. Nothing here depends on the device: tests play its part.

use std::sync::atomic::{Ordering, fence};

use culvert_abi::pf::{
    Entry, HOST_INDEX, HOST_SLEEPS, MAX_PAYLOAD, NIC_INDEX, NIC_SLEEPS, RING_HEADER, ring_len,
};
use culvert_pci::DmaBuffer;
use zerocopy::{FromBytes, IntoBytes};

use crate::{Error, Result};

/// Bytes between the buffers of a ring. Each holds one frame or payload.
pub const RING_BUFFER: usize = 2048;
const ENTRY: usize = size_of::<Entry>();

/// Bytes of DMA memory for a ring and for its buffers.
pub(crate) fn memory_of(size_log2: u32) -> (usize, usize) {
    (ring_len(size_log2) as usize, RING_BUFFER << size_log2)
}

/// What both directions share.
struct Memory {
    ring: DmaBuffer,
    buffers: DmaBuffer,
    size: u32,
    queue: usize,
}

impl Memory {
    fn load(&self, word: u64) -> u32 {
        u32::from_le(self.ring.atomic_u32(word as usize).load(Ordering::Acquire))
    }

    fn store(&self, word: u64, value: u32) {
        self.ring.atomic_u32(word as usize).store(value.to_le(), Ordering::Release);
    }

    fn slot(&self, index: u32) -> usize {
        (index % self.size) as usize
    }

    fn write_entry(&self, index: u32, entry: &Entry) -> Result<()> {
        let at = RING_HEADER as usize + self.slot(index) * ENTRY;
        Ok(self.ring.write_at(at, entry.as_bytes())?)
    }

    fn buffer_iova(&self, index: u32) -> u64 {
        self.buffers.iova() + (self.slot(index) * RING_BUFFER) as u64
    }

    fn fault(&self) -> Error {
        Error::QueueFault { device: format!("ring at {:#x}", self.ring.iova()), queue: self.queue }
    }
}

/// Queue 0: commands and frames to the NIC. Buffer `i` of the ring belongs to entry `i`.
pub struct HostToNic {
    memory: Memory,
    /// Entries written.
    produced: u32,
}

impl HostToNic {
    /// An empty ring of `1 << size_log2` entries in zeroed memory.
    pub fn new(ring: DmaBuffer, buffers: DmaBuffer, size_log2: u32, queue: usize) -> Self {
        HostToNic { memory: Memory { ring, buffers, size: 1 << size_log2, queue }, produced: 0 }
    }

    /// How many entries can be written now.
    ///
    /// # Errors
    /// The board's index makes no sense.
    pub fn room(&self) -> Result<u32> {
        self.used().map(|used| self.memory.size - used)
    }

    /// How many entries were written that the board has not taken.
    ///
    /// # Errors
    /// The board's index makes no sense.
    pub fn used(&self) -> Result<u32> {
        let used = self.produced.wrapping_sub(self.memory.load(NIC_INDEX));
        if used <= self.memory.size { Ok(used) } else { Err(self.memory.fault()) }
    }

    /// Writes an entry whose payload is these pieces. `false`: the ring is full. The board sees it at the next
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    /// The payload is too long, or the ring makes no sense.
    pub fn push(&mut self, entry: &Entry, payload: &[&[u8]]) -> Result<bool> {
        let len: usize = payload.iter().map(|p| p.len()).sum();
        if len > MAX_PAYLOAD as usize {
            return Err(Error::TooLong { len, limit: MAX_PAYLOAD as usize });
        }
        if self.room()? == 0 {
            return Ok(false);
        }
        let mut at = self.memory.slot(self.produced) * RING_BUFFER;
        for piece in payload {
            self.memory.buffers.write_at(at, piece)?;
            at += piece.len();
        }
        let entry = Entry { addr: self.memory.buffer_iova(self.produced), len: len as u32, ..*entry };
        self.memory.write_entry(self.produced, &entry)?;
        self.produced = self.produced.wrapping_add(1);
        Ok(true)
    }

    /// Shows the board what was written. `true`: it sleeps, ring the queue's bell.
    pub fn publish(&mut self) -> bool {
        if self.memory.load(HOST_INDEX) == self.produced {
            return false;
        }
        self.memory.store(HOST_INDEX, self.produced);
        fence(Ordering::SeqCst);
        self.memory.load(NIC_SLEEPS) != 0
    }
}

/// A queue to the host: exceptions, completions, captured packets or a VMQ.
pub struct NicToHost {
    memory: Memory,
    /// Entries taken out.
    consumed: u32,
    /// Entries given to the board.
    posted: u32,
}

impl NicToHost {
    /// A ring of `1 << size_log2` entries in zeroed memory, with all its buffers posted.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn new(ring: DmaBuffer, buffers: DmaBuffer, size_log2: u32, queue: usize) -> Result<Self> {
        let memory = Memory { ring, buffers, size: 1 << size_log2, queue };
        let mut new = NicToHost { memory, consumed: 0, posted: 0 };
        for index in 0..new.memory.size {
            new.write_empty(index)?;
        }
        new.posted = new.memory.size;
        new.memory.store(HOST_INDEX, new.posted);
        Ok(new)
    }

    fn write_empty(&self, index: u32) -> Result<()> {
        let addr = self.memory.buffer_iova(index);
        self.memory.write_entry(index, &Entry { addr, len: RING_BUFFER as u32, ..Entry::default() })
    }

    /// The oldest entry, its bytes copied to the front of `into`. `None`: there is none.
    ///
    /// # Errors
    /// The board's index makes no sense.
    pub fn pop<'b>(&mut self, into: &'b mut [u8; RING_BUFFER]) -> Result<Option<(Entry, &'b [u8])>> {
        let filled = self.memory.load(NIC_INDEX).wrapping_sub(self.consumed);
        if filled > self.posted.wrapping_sub(self.consumed) {
            return Err(self.memory.fault());
        }
        if filled == 0 {
            return Ok(None);
        }
        let slot = self.memory.slot(self.consumed);
        let mut bytes = [0; ENTRY];
        self.memory.ring.read_at(RING_HEADER as usize + slot * ENTRY, &mut bytes)?;
        let Ok(entry) = Entry::read_from_bytes(&bytes) else { return Err(self.memory.fault()) };
        // The board is trusted no further than its own buffer.
        let len = (entry.len as usize).min(RING_BUFFER);
        let data = &mut into[..len];
        self.memory.buffers.read_at(slot * RING_BUFFER, data)?;
        self.consumed = self.consumed.wrapping_add(1);
        Ok(Some((Entry { len: len as u32, ..entry }, data)))
    }

    /// Gives the buffers of all entries taken out back to the board. `true`: it had none left and sleeps, ring the bell.
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
            self.write_empty(self.posted)?;
            self.posted = self.posted.wrapping_add(1);
        }
        self.memory.store(HOST_INDEX, self.posted);
        fence(Ordering::SeqCst);
        Ok(self.memory.load(NIC_INDEX) == before && self.memory.load(NIC_SLEEPS) != 0)
    }

    /// Asks for the queue's interrupt. `false`: something has come meanwhile, look at the ring again.
    pub fn arm(&self) -> bool {
        self.memory.store(HOST_SLEEPS, 1);
        fence(Ordering::SeqCst);
        if self.memory.load(NIC_INDEX) == self.consumed {
            return true;
        }
        self.disarm();
        false
    }

    /// Wants no interrupts: the ring is being looked at.
    pub fn disarm(&self) {
        self.memory.store(HOST_SLEEPS, 0);
    }
}

#[cfg(test)]
mod tests;
