//! Packets and the memory that they lie in.

use std::fmt;

use culvert_flow::{Checksum, Frame, Port};
use culvert_packet::{Gso, Offload, prefetch_to_write};
use rtrb::{Consumer, Producer, RingBuffer};

use super::memory;
use super::segment::Segmentation;

/// Bytes in front of a received frame: room for outer headers and a VLAN tag.
pub const HEADROOM: usize = 128;
/// Size of a common buffer.
pub const BUFFER: usize = 2048;
/// Size of a buffer for frames that are yet to be segmented.
pub const LARGE_BUFFER: usize = HEADROOM + (1 << 16);

/// A packet, which owns its buffer. It is given back to the [`Pool`] that it comes from, or its buffer is lost.
#[must_use = "its buffer goes back to the pool"]
pub struct Packet {
    buffer: &'static mut [u8],
    number: u32,
    start: u32,
    len: u32,
    /// The pool that the buffer is of.
    home: u8,
    /// Where it came in.
    pub input: Port,
    /// What is known of its outer UDP checksum.
    pub checksum: Checksum,
    /// What is known of its transport checksum, and whether it is to be segmented.
    pub offload: Offload,
}

impl Packet {
    /// Its number: no other packet of the pool has it, nor of the pools that are its [neighbours](Pool::neighbours).
    #[inline(always)]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The frame.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start as usize..(self.start + self.len) as usize).unwrap_or_default()
    }

    /// Calls the lines of outer and inner headers, which another core has, and which are going to change.
    #[inline]
    pub(super) fn prefetch(&self) {
        for at in [0, 64] {
            self.bytes().get(at).into_iter().for_each(prefetch_to_write);
        }
    }

    /// The frame, to be edited.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start as usize..(self.start + self.len) as usize).unwrap_or_default()
    }

    /// Room for a frame that comes in, behind the room for headers.
    #[inline(always)]
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(HEADROOM..).unwrap_or_default()
    }

    /// The frame in [`room`](Self::room) is `len` bytes long from byte `from` on. `false`: it does not lie there.
    #[inline(always)]
    #[must_use]
    pub fn set(&mut self, from: usize, len: usize) -> bool {
        let fits = from <= self.buffer.len() - HEADROOM && len <= self.buffer.len() - HEADROOM - from;
        if fits {
            (self.start, self.len) = ((HEADROOM + from) as u32, len as u32);
        }
        fits
    }

    /// Becomes a copy of `frame`. `false`: it is too long.
    #[must_use]
    pub fn fill(&mut self, frame: &[u8]) -> bool {
        let fits = self.set(0, frame.len());
        if fits {
            self.bytes_mut().copy_from_slice(frame);
        }
        fits
    }

    /// Puts `bytes` in front of the frame. `false`, and nothing happens, if there is no room.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = (self.start as usize).checked_sub(bytes.len()) else { return false };
        self.buffer[start..start + bytes.len()].copy_from_slice(bytes);
        (self.start, self.len) = (start as u32, self.len + bytes.len() as u32);
        true
    }

    /// Length of the longest frame that this one is yet to be cut into; 0: it is not.
    #[inline(always)]
    fn unit(&self) -> usize {
        if self.offload.gso == Gso::None { 0 } else { self.segments().map_or(0, |s| s.longest()) }
    }

    /// How it is yet to be cut.
    #[cold]
    pub fn segments(&self) -> Option<Segmentation> {
        Segmentation::of(self.bytes(), &self.offload)
    }

    /// Lets the core work on the frame: whatever it makes of it is the frame afterwards.
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

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet {} from {:?}, {} bytes", self.number, self.input, self.len)
    }
}

/// Buffers that are free. Their memory is taken once and lives as long as the program.
pub struct Pool {
    free: Vec<Packet>,
    large: Vec<Packet>,
    count: u32,
    home: u8,
    /// To each pool, by number, the way home of its buffers; our own place is empty.
    homewards: Vec<Option<Producer<Packet>>>,
    /// Buffers of ours that come back from others.
    back: Vec<Consumer<Packet>>,
}

impl Pool {
    /// A pool of `count` buffers for frames of common size and `large` ones for frames that are yet to be segmented.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(count: usize, large: usize) -> std::io::Result<Self> {
        Self::numbered(0, count, large)
    }

    /// Pools whose packets may be given to any of them: each buffer finds its way home. Packets of all of them are
    /// numbered together.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn neighbours(pools: usize, count: usize, large: usize) -> std::io::Result<Vec<Self>> {
        let pools = u8::try_from(pools).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        let mut all: Vec<Pool> =
            (0..pools).map(|home| Self::numbered(home, count, large)).collect::<std::io::Result<_>>()?;
        for from in 0..all.len() {
            for to in 0..all.len() {
                // As long as there are buffers, so that there always is room.
                let ring = (from != to).then(|| RingBuffer::new(count + large));
                let homewards = ring.map(|(producer, consumer)| {
                    all[to].back.push(consumer);
                    producer
                });
                all[from].homewards.push(homewards);
            }
        }
        Ok(all)
    }

    fn numbered(home: u8, count: usize, large: usize) -> std::io::Result<Self> {
        let before = usize::from(home) * (count + large);
        let cut = |size: usize, n: usize, first: usize| -> std::io::Result<Vec<Packet>> {
            let all = memory::zeroed::<u8>(size * n)?;
            let packet = |(i, buffer): (usize, &'static mut [u8])| Packet {
                buffer,
                number: (before + first + i) as u32,
                start: HEADROOM as u32,
                len: 0,
                home,
                input: Port::None,
                checksum: Checksum::Unknown,
                offload: Offload::default(),
            };
            Ok(all.chunks_exact_mut(size).enumerate().map(packet).rev().collect())
        };
        let (free, large) = (cut(BUFFER, count, 0)?, cut(LARGE_BUFFER, large, count)?);
        let count = (free.len() + large.len()) as u32;
        Ok(Pool { free, large, count, home, homewards: Vec::new(), back: Vec::new() })
    }

    /// A free buffer.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Packet> {
        self.free.pop()
    }

    /// A free buffer for a frame of up to 64 KiB.
    pub fn take_large(&mut self) -> Option<Packet> {
        self.large.pop()
    }

    /// A free buffer for a frame of this length with outer headers still to come.
    pub fn take_for(&mut self, len: usize) -> Option<Packet> {
        if len <= BUFFER - HEADROOM { self.take() } else { self.take_large() }
    }

    /// Takes a buffer back, or sends it home.
    #[inline(always)]
    pub fn give(&mut self, packet: Packet) {
        if packet.home != self.home {
            return self.send_home(packet);
        }
        let free = if packet.buffer.len() == BUFFER { &mut self.free } else { &mut self.large };
        let packet = Packet { checksum: Checksum::Unknown, offload: Offload::default(), ..packet };
        free.push(packet);
    }

    fn send_home(&mut self, packet: Packet) {
        let way = self.homewards.get_mut(usize::from(packet.home)).and_then(Option::as_mut);
        let sent = way.is_some_and(|way| way.push(packet).is_ok());
        debug_assert!(sent, "a buffer of no neighbour's");
    }

    /// Takes in what neighbours have sent home.
    #[inline]
    pub fn take_back(&mut self) {
        let mut back = std::mem::take(&mut self.back);
        for ring in &mut back {
            while let Ok(packet) = ring.pop() {
                self.give(packet);
            }
        }
        self.back = back;
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

    /// How many buffers there are: packets are numbered below this.
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
        let mut numbers: Vec<u32> = taken.iter().map(Packet::number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        for (n, packet) in taken.into_iter().enumerate() {
            assert_eq!((packet.bytes()[0], packet.bytes()[8], packet.bytes().len()), (0xaa, n as u8, 72));
            pool.give(packet);
        }
        assert_eq!(pool.free(), 5);
    }

    #[test]
    fn buffers_given_to_a_neighbour_find_home() {
        let mut pools = Pool::neighbours(3, 2, 1).unwrap();
        let mut numbers = Vec::new();
        for n in 0..3 {
            let taken: Vec<Packet> = std::iter::from_fn(|| pools[n].take()).collect();
            let taken: Vec<Packet> = taken.into_iter().chain(pools[n].take_large()).collect();
            assert_eq!(taken.len(), 3);
            for (to, packet) in taken.into_iter().enumerate() {
                numbers.push(packet.number());
                pools[to].give(packet);
            }
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..9).collect::<Vec<_>>());
        for pool in &mut pools {
            assert_eq!(pool.free(), 1);
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
