//! Packets that wait for the decision on their flow.
//!
//! The core's pending table has their order, by numbers that are given out here. There are as many as the worker has
//! buffers. While most are free, every packet gets one; after that a vport has as many as are free beside it.

use std::collections::VecDeque;

use culvert_flow::pending::BufferId;

use crate::packet::Packet;

/// The number of packets that may not wait: the core refuses them as `pending_overflow`.
pub(super) const MUST_NOT_WAIT: BufferId = BufferId::MAX;

/// Waiting packets by number.
pub(super) struct PendedPackets {
    packets: Vec<Option<(Packet, u16)>>,
    /// Free numbers, in the order in which they will be given out.
    free: VecDeque<BufferId>,
    /// For each vport, how many of its packets wait.
    held: Vec<u32>,
}

impl PendedPackets {
    /// For `packets` packets of `vports` vports.
    pub(super) fn new(packets: usize, vports: usize) -> Self {
        PendedPackets {
            packets: (0..packets).map(|_| None).collect(),
            free: (0..packets as BufferId).collect(),
            held: vec![0; vports],
        }
    }

    /// The number of the next packet that has to wait. `vport` says which one is charged; it is asked for only if few
    /// numbers are free.
    #[inline]
    pub(super) fn next_number(&self, vport: impl FnOnce() -> u16) -> BufferId {
        let free = self.free.len();
        let may_wait = 2 * free > self.packets.len()
            || self.held.get(usize::from(vport())).is_some_and(|held| (*held as usize) < free);
        self.free.front().copied().filter(|_| may_wait).unwrap_or(MUST_NOT_WAIT)
    }

    /// Whether a vport's own packets of another burst of that many may wait. While they may not, the vport's port is not read:
    /// nothing of them is lost.
    #[inline]
    pub(super) fn has_room(&self, vport: u16, burst: usize) -> bool {
        let free = self.free.len();
        2 * free > self.packets.len() + 2 * burst
            || self.held.get(usize::from(vport)).is_some_and(|held| *held as usize + burst <= free)
    }

    /// The core has used the number that [`next_number`](Self::next_number) gave: the packet is to be kept by it.
    pub(super) fn reserve(&mut self) {
        self.free.pop_front();
    }

    /// Keeps a packet by a reserved number, at the expense of a vport. Returns it if its number is out of range.
    pub(super) fn insert(&mut self, number: BufferId, packet: Packet, vport: u16) -> Result<(), Packet> {
        match (self.packets.get_mut(number as usize), self.held.get_mut(usize::from(vport))) {
            (Some(place), Some(held)) => {
                *place = Some((packet, vport));
                *held += 1;
                Ok(())
            }
            _ => Err(packet),
        }
    }

    /// Takes a packet out.
    pub(super) fn take(&mut self, number: BufferId) -> Option<Packet> {
        let (packet, vport) = self.packets.get_mut(number as usize)?.take()?;
        self.free.push_back(number);
        if let Some(held) = self.held.get_mut(usize::from(vport)) {
            *held -= 1;
        }
        Some(packet)
    }

    /// How many packets wait.
    pub(super) fn len(&self) -> usize {
        self.packets.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests;
