//! Pools of packet buffers.

use culvert_flow::Checksum;
use culvert_packet::{Offload, prefetch};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::BURST;
use crate::memory;
use crate::packet::{BUFFER, HEADROOM, LARGE_BUFFER, Packet};

/// Returned buffers in all rings to a pool, if each may have its share of them.
const RETURNS: usize = 16_384;
/// Returned buffers that a ring holds, at most and at least. Others wait at the pool that they were given to.
const MAX_RETURNS: usize = 4096;
const MIN_RETURNS: usize = 1024;

/// The end of a ring that returns another pool's buffers.
struct ReturnTx {
    ring: Producer<Packet>,
    /// Buffers that the owner does not see yet.
    staged: Vec<Packet>,
}

impl ReturnTx {
    /// Publishes as many buffers as the ring has room for. `true`: all of them.
    fn publish(&mut self) -> bool {
        let n = self.staged.len().min(self.ring.slots());
        if n > 0
            && let Ok(chunk) = self.ring.write_chunk_uninit(n)
        {
            chunk.fill_from_iter(self.staged.drain(..n));
        }
        self.staged.is_empty()
    }
}

/// The free packet buffers of a worker. Their memory is allocated once and lives as long as the program.
pub struct Pool {
    free: Vec<Packet>,
    large: Vec<Packet>,
    count: u32,
    owner: u8,
    /// Large buffers that may not be taken in this turn.
    large_floor: usize,
    /// To each other pool, by number: the ring that returns its buffers.
    returns: Vec<Option<ReturnTx>>,
    /// From each other pool: the ring that returns our buffers.
    back: Vec<Consumer<Packet>>,
}

impl Pool {
    /// A pool of `count` buffers for frames of common size and `large` ones for frames that are segmented on the way out.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(count: usize, large: usize) -> std::io::Result<Self> {
        Self::owned(0, count, large)
    }

    /// Pools that return each other's buffers: a packet may be given to any of them.
    ///
    /// # Errors
    /// Out of memory.
    pub fn neighbours(pools: usize, count: usize, large: usize) -> std::io::Result<Vec<Self>> {
        let pools = u8::try_from(pools).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        let mut all: Vec<Pool> =
            (0..pools).map(|owner| Self::owned(owner, count, large)).collect::<std::io::Result<_>>()?;
        let capacity = (RETURNS / all.len().saturating_sub(1).max(1)).clamp(MIN_RETURNS, MAX_RETURNS);
        for from in 0..all.len() {
            for to in 0..all.len() {
                let ring = (from != to).then(|| RingBuffer::new(capacity));
                let tx = ring.map(|(ring, consumer)| {
                    all[to].back.push(consumer);
                    ReturnTx { ring, staged: Vec::with_capacity(BURST) }
                });
                all[from].returns.push(tx);
            }
        }
        Ok(all)
    }

    fn owned(owner: u8, count: usize, large: usize) -> std::io::Result<Self> {
        let cut = |size: usize, n: usize| -> std::io::Result<Vec<Packet>> {
            let all = memory::zeroed::<u8>(size * n)?;
            Ok(all.chunks_exact_mut(size).map(|buffer| Packet::new(buffer, owner)).rev().collect())
        };
        let (free, large) = (cut(BUFFER, count)?, cut(LARGE_BUFFER, large)?);
        let count = (free.len() + large.len()) as u32;
        Ok(Pool { free, large, large_floor: 0, count, owner, returns: Vec::new(), back: Vec::new() })
    }

    /// A free buffer.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Packet> {
        self.free.pop()
    }

    /// A free buffer for a frame of up to 64 KiB.
    pub fn take_large(&mut self) -> Option<Packet> {
        if self.large.len() > self.large_floor { self.large.pop() } else { None }
    }

    /// Lets the next turn take at most `n` large buffers. `None`: as many as there are.
    pub(super) fn limit_large(&mut self, n: Option<usize>) {
        self.large_floor = n.map_or(0, |n| self.large.len().saturating_sub(n));
    }

    /// Whether there are large buffers, but this turn may take none of them any more: the next one may.
    pub fn keeps_large(&self) -> bool {
        !self.large.is_empty() && self.large.len() <= self.large_floor
    }

    /// A free buffer for a frame of this length with outer headers still to come.
    pub fn take_for(&mut self, len: usize) -> Option<Packet> {
        if len <= BUFFER - HEADROOM { self.take() } else { self.take_large() }
    }

    /// Takes a buffer back, or returns it to its owner.
    #[inline(always)]
    pub fn give(&mut self, packet: Packet) {
        if packet.owner != self.owner {
            return self.return_to_owner(packet);
        }
        let free = if packet.buffer.len() == BUFFER { &mut self.free } else { &mut self.large };
        free.push(Packet { checksum: Checksum::Unknown, offload: Offload::default(), ..packet });
    }

    fn return_to_owner(&mut self, packet: Packet) {
        let tx = self.returns.get_mut(usize::from(packet.owner)).and_then(Option::as_mut);
        debug_assert!(tx.is_some(), "a buffer of no neighbour");
        if let Some(tx) = tx {
            tx.staged.push(packet);
        }
    }

    /// Returns the neighbours' buffers that were given to this pool, all of a burst at once. `false`: some have to wait until
    /// their owner has taken back others.
    #[inline]
    pub fn publish_returns(&mut self) -> bool {
        let mut all = true;
        for tx in self.returns.iter_mut().flatten() {
            if !tx.staged.is_empty() {
                all &= tx.publish();
            }
        }
        all
    }

    /// Takes in the buffers that neighbours have returned.
    #[inline]
    pub fn take_back(&mut self) {
        for ring in &mut self.back {
            while let n @ 1.. = ring.slots().min(BURST)
                && let Ok(chunk) = ring.read_chunk(n)
            {
                // The other core has the entries, too.
                let (front, back) = chunk.as_slices();
                front.iter().chain(back).for_each(prefetch);
                for packet in chunk {
                    packet.prefetch_room();
                    let free = if packet.buffer.len() == BUFFER { &mut self.free } else { &mut self.large };
                    free.push(Packet { checksum: Checksum::Unknown, offload: Offload::default(), ..packet });
                }
            }
        }
    }

    /// How many buffers of common size are free.
    #[inline(always)]
    pub fn common(&self) -> usize {
        self.free.len()
    }

    /// How many buffers are free.
    pub fn free(&self) -> usize {
        self.free.len() + self.large.len()
    }

    /// How many buffers there are.
    pub fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_distinct_and_come_back() {
        let mut pool = Pool::new(4, 1).unwrap();
        assert_eq!((pool.free(), pool.count()), (5, 5));
        let mut taken: Vec<Packet> = std::iter::from_fn(|| pool.take()).collect();
        taken.extend(pool.take_large());
        assert!(pool.take().is_none() && pool.take_large().is_none() && taken.len() == 5);
        for (n, packet) in taken.iter_mut().enumerate() {
            assert!(packet.fill(&[n as u8; 64]) && packet.prepend(&[0xaa; 8]));
        }
        for (n, packet) in taken.into_iter().enumerate() {
            assert_eq!((packet.bytes()[0], packet.bytes()[8], packet.bytes().len()), (0xaa, n as u8, 72));
            pool.give(packet);
        }
        assert_eq!(pool.free(), 5);
    }

    #[test]
    fn buffers_given_to_a_neighbour_are_returned() {
        let mut pools = Pool::neighbours(3, 2, 1).unwrap();
        for n in 0..3 {
            let taken: Vec<Packet> = std::iter::from_fn(|| pools[n].take()).collect();
            let taken: Vec<Packet> = taken.into_iter().chain(pools[n].take_large()).collect();
            assert_eq!(taken.len(), 3);
            for (to, packet) in taken.into_iter().enumerate() {
                pools[to].give(packet);
            }
        }
        for pool in &mut pools {
            pool.take_back();
            assert_eq!(pool.free(), 1, "a burst is not over before it is published");
        }
        assert!(pools.iter_mut().all(Pool::publish_returns));
        for pool in &mut pools {
            pool.take_back();
            assert_eq!((pool.free(), pool.common()), (3, 2));
        }
    }

    #[test]
    fn a_frame_stays_in_its_buffer() {
        let mut pool = Pool::new(1, 0).unwrap();
        let mut packet = pool.take().unwrap();
        assert!(
            !packet.fill(&[0; BUFFER - HEADROOM + 1])
                && !packet.set(usize::MAX, 1)
                && !packet.set(1, usize::MAX)
        );
        assert!(packet.fill(&[0; BUFFER - HEADROOM]));
        assert!(packet.prepend(&[1; HEADROOM]) && !packet.prepend(&[1]));
        assert_eq!(packet.bytes().len(), BUFFER);
    }
}
