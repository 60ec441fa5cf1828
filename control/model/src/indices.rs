//! Numbers that outlive policy changes and restarts: indices of names, and generations of their contents.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The numbers of a host's snapshot that a restart must keep. The caller stores them together with the policy, before it
/// applies the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Indices {
    /// Vports, by the interface's resource id.
    pub(crate) vports: Allocator,
    /// Virtual functions, by the interface's resource id.
    pub(crate) vfs: Allocator,
    /// Receive queues, by the interface's resource id.
    pub(crate) vmqs: Allocator,
    /// Tunnels, by uplink, addresses and encapsulation.
    pub(crate) tunnels: Allocator,
    /// Hosts, this one too, by the server's resource id.
    pub(crate) peers: Allocator,
    /// Replication groups, by VSID and direction.
    pub(crate) groups: Allocator,
    /// Generations of vports, by index.
    pub(crate) vport_generations: Generations,
    /// Generations of mapping cells, by index.
    pub(crate) cell_generations: Generations,
}

/// Allocates numbers for names; a name keeps its number as long as it is in use. A free number is reused as late as
/// possible, so that the datapath has forgotten its old meaning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Allocator {
    held: BTreeMap<String, u16>,
    next: u16,
    /// The numbers in `held`, once one was asked for.
    #[serde(skip)]
    taken: Option<BTreeSet<u16>>,
}

impl PartialEq for Allocator {
    fn eq(&self, other: &Self) -> bool {
        (&self.held, self.next) == (&other.held, other.next)
    }
}

impl Eq for Allocator {}

impl Allocator {
    /// Frees the numbers of names that are no longer in use.
    pub(crate) fn keep(&mut self, used: &BTreeSet<String>) {
        self.held.retain(|name, _| used.contains(name));
        self.taken = None;
    }

    /// The number of `name`, below `limit`. `None`: all are in use.
    pub(crate) fn number(&mut self, name: &str, limit: u16) -> Option<u16> {
        if let Some(number) = self.held.get(name) {
            return Some(*number);
        }
        let taken = self.taken.get_or_insert_with(|| self.held.values().copied().collect());
        if taken.len() >= limit.into() && taken.range(..limit).count() == usize::from(limit) {
            return None;
        }
        let start = if self.next < limit { self.next } else { 0 };
        let number = (start..limit).chain(0..start).find(|n| !taken.contains(n))?;
        taken.insert(number);
        self.next = number + 1;
        self.held.insert(name.to_owned(), number);
        Some(number)
    }
}

/// Generations: values that grow whenever their content changes, also when it is removed and added again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generations {
    cells: BTreeMap<u16, Cell>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cell {
    value: u32,
    fingerprint: u64,
}

impl Generations {
    /// Updates the values for these contents. A cell whose content changed or was removed gets a new value.
    pub(crate) fn update(&mut self, contents: &BTreeMap<u16, u64>) {
        for (index, cell) in &mut self.cells {
            let fingerprint = contents.get(index).copied().unwrap_or(EMPTY);
            if cell.fingerprint != fingerprint {
                // After 2^32 changes a record of the very same value would have to have survived them all.
                *cell = Cell { value: cell.value.wrapping_add(1), fingerprint };
            }
        }
        for (index, fingerprint) in contents {
            self.cells.entry(*index).or_insert(Cell { value: 1, fingerprint: *fingerprint });
        }
    }

    /// A cell's value; 0 if it never had content.
    pub(crate) fn value(&self, index: u16) -> u32 {
        self.cells.get(&index).map_or(0, |c| c.value)
    }
}

/// The fingerprint of nothing.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// A fingerprint of some content: FNV-1a of its debug text. If another version of the daemon computes another value,
/// flows are re-evaluated, and nothing else happens.
pub(crate) fn fingerprint(content: &impl std::fmt::Debug) -> u64 {
    format!("{content:?}").bytes().fold(EMPTY, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests;
