//! Rings in host memory, from the board's side (`culvert_abi::pf`). Everything in them is the driver's word, read once
//! and checked.

use std::collections::{HashMap, VecDeque};

use culvert_abi::pf::{
    Entry, HOST_INDEX, HOST_SLEEPS, MAX_PAYLOAD, NIC_INDEX, NIC_SLEEPS, RING_HEADER, ring_len,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::dma::{Fault, View};

const ENTRY: u64 = size_of::<Entry>() as u64;
/// Entries of a queue that may wait for the host's buffers, and those of one owner.
const HELD: usize = 1024;
const HELD_SHARE: usize = HELD / 8;

/// Place and size of a ring, and how far the board is in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ring {
    base: u64,
    mask: u32,
    index: u32,
}

impl Ring {
    /// `None`: the size is not between 4 and 12, the base not aligned, or the ring beyond the end of all addresses.
    pub(super) fn new(base: u64, size_log2: u32) -> Option<Self> {
        let fits = (4..=12).contains(&size_log2)
            && base.is_multiple_of(64)
            && base.checked_add(ring_len(size_log2)).is_some();
        fits.then(|| Ring { base, mask: (1 << size_log2) - 1, index: 0 })
    }

    /// Whether the ring's indices can be reached at all.
    pub(super) fn check(&self, view: &View<'_>) -> Result<(), Fault> {
        [HOST_INDEX, HOST_SLEEPS].into_iter().try_for_each(|at| view.load_u32(self.base + at).map(drop))
    }

    /// Entries that the host has produced and the board has not used. `None`: more than there are.
    fn available(&self, view: &View<'_>) -> Result<u32, Fault> {
        let ahead = view.load_u32(self.base + HOST_INDEX)?.wrapping_sub(self.index);
        if ahead > self.mask + 1 { Err(Fault::Unmapped) } else { Ok(ahead) }
    }

    fn entry_at(&self, index: u32) -> u64 {
        self.base + RING_HEADER + u64::from(index & self.mask) * ENTRY
    }

    fn read(&self, view: &View<'_>) -> Result<Entry, Fault> {
        let mut bytes = [0; ENTRY as usize];
        view.read(self.entry_at(self.index), &mut bytes)?;
        Ok(Entry::read_from_bytes(&bytes).unwrap_or_default())
    }

    /// Publishes the board's index. Returns whether the host sleeps and is to be interrupted.
    fn publish(&self, view: &View<'_>) -> Result<bool, Fault> {
        view.store_u32(self.base + NIC_INDEX, self.index)?;
        Ok(view.load_u32(self.base + HOST_SLEEPS)? != 0)
    }
}

/// Queue 0: entries of the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct FromHost {
    ring: Ring,
    published: u32,
}

impl FromHost {
    pub(super) fn new(ring: Ring) -> Self {
        FromHost { ring, published: 0 }
    }

    /// The next entry; its payload goes to the front of `payload`.
    pub(super) fn next(&mut self, view: &View<'_>, payload: &mut [u8]) -> Result<Option<Entry>, Fault> {
        if self.ring.available(view)? == 0 {
            return Ok(None);
        }
        let entry = self.ring.read(view)?;
        if entry.len > MAX_PAYLOAD || entry.len as usize > payload.len() {
            return Err(Fault::Denied);
        }
        view.read(entry.addr, &mut payload[..entry.len as usize])?;
        self.ring.index = self.ring.index.wrapping_add(1);
        Ok(Some(entry))
    }

    pub(super) fn has_work(&self, view: &View<'_>) -> bool {
        self.ring.available(view).is_ok_and(|n| n > 0)
    }

    /// Returns whether the host is to be interrupted.
    pub(super) fn publish(&mut self, view: &View<'_>) -> Result<bool, Fault> {
        if self.published == self.ring.index {
            return Ok(false);
        }
        self.published = self.ring.index;
        self.ring.publish(view)
    }

    /// Announces that the board sleeps, or no longer does.
    pub(super) fn set_sleeping(&self, view: &View<'_>, sleeping: bool) -> Result<(), Fault> {
        view.store_u32(self.ring.base + NIC_SLEEPS, u32::from(sleeping))
    }
}

/// An entry that waits for the host to post a buffer, and whose share of the queue it takes.
type Held = (Entry, Vec<u8>, Owner);

/// Whose packet an entry is for: a vport, or a virtual subnet if it came from the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// A vport's.
    Vport(u16),
    /// A subnet's; 0 for packets of the underlay.
    Vsid(u32),
    /// The driver's own: completions.
    Host,
}

/// Another queue: buffers of the host, filled by the board.
#[derive(Debug)]
pub(super) struct ToHost {
    ring: Ring,
    published: u32,
    held: VecDeque<Held>,
    /// How many of them are whose.
    shares: HashMap<Owner, usize>,
}

impl ToHost {
    pub(super) fn new(ring: Ring) -> Self {
        ToHost { ring, published: 0, held: VecDeque::new(), shares: HashMap::new() }
    }

    /// Whether another entry of this owner may wait. Each has its own share of the places: one vport's packets do not take
    /// all of them from the others.
    pub(super) fn has_room(&self, owner: Owner) -> bool {
        self.held.len() < HELD && self.shares.get(&owner).is_none_or(|n| *n < HELD_SHARE)
    }

    /// Hands over an entry with its bytes; it waits, in order, while the host has posted no buffer.
    pub(super) fn push(
        &mut self,
        view: &View<'_>,
        entry: Entry,
        parts: &[&[u8]],
        owner: Owner,
    ) -> Result<(), Fault> {
        if !self.held.is_empty() || !self.fill(view, &entry, parts)? {
            self.held.push_back((entry, parts.concat(), owner));
            *self.shares.entry(owner).or_default() += 1;
        }
        Ok(())
    }

    /// Hands over waiting entries while there are buffers.
    pub(super) fn drain(&mut self, view: &View<'_>) -> Result<(), Fault> {
        while let Some((entry, bytes, owner)) = self.held.pop_front() {
            if !self.fill(view, &entry, &[&bytes])? {
                self.held.push_front((entry, bytes, owner));
                break;
            }
            if let Some(n) = self.shares.get_mut(&owner) {
                *n -= 1;
                if *n == 0 {
                    self.shares.remove(&owner);
                }
            }
        }
        Ok(())
    }

    /// Fills the next buffer. `false`: there is none. A buffer that is too short gets what fits, and the entry tells
    /// the length that would have been right.
    fn fill(&mut self, view: &View<'_>, entry: &Entry, parts: &[&[u8]]) -> Result<bool, Fault> {
        if self.ring.available(view)? == 0 {
            return Ok(false);
        }
        let posted = self.ring.read(view)?;
        let (mut at, mut room) = (posted.addr, posted.len as usize);
        for part in parts {
            let n = part.len().min(room);
            view.write(at, &part[..n])?;
            // A part that ends with the last address has been written; anything behind it faults.
            at = at.wrapping_add(n as u64);
            room -= n;
        }
        let len = posted.len - room as u32;
        let original_len = parts.iter().map(|p| p.len()).sum::<usize>() as u16;
        let done = Entry { addr: posted.addr, len, original_len, ..*entry };
        view.write(self.ring.entry_at(self.ring.index), done.as_bytes())?;
        self.ring.index = self.ring.index.wrapping_add(1);
        Ok(true)
    }

    /// Returns whether the host is to be interrupted.
    pub(super) fn publish(&mut self, view: &View<'_>) -> Result<bool, Fault> {
        if self.published == self.ring.index {
            return Ok(false);
        }
        self.published = self.ring.index;
        self.ring.publish(view)
    }
}

#[cfg(test)]
mod tests;
