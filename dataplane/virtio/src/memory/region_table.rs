//! Regions by their first address: a short list while they are few, a tree when a virtual IOMMU makes them many.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mapped_file::MappedFile;

/// Regions up to which a list is searched, from its beginning.
const FEW: usize = 32;

/// A range of addresses and what lies behind it.
#[derive(Clone)]
pub struct Region {
    /// Length in bytes, not 0.
    pub size: u64,
    /// Where in the file's mapping it begins.
    pub offset: u64,
    /// Whether the device may read it.
    pub read: bool,
    /// Whether the device may write it.
    pub write: bool,
    /// The file that has its bytes. `None`: the owner of the remote memory has them.
    pub file: Option<Arc<MappedFile>>,
}

/// Regions that do not overlap.
#[derive(Clone)]
pub(super) enum RegionTable {
    Few(Vec<(u64, Region)>),
    Many(BTreeMap<u64, Region>),
}

impl Default for RegionTable {
    fn default() -> Self {
        RegionTable::Few(Vec::new())
    }
}

/// Last address of a region.
fn last(start: u64, region: &Region) -> u64 {
    start + (region.size - 1)
}

impl RegionTable {
    pub(super) fn len(&self) -> usize {
        match self {
            RegionTable::Few(list) => list.len(),
            RegionTable::Many(tree) => tree.len(),
        }
    }

    /// Bytes of all regions.
    pub(super) fn bytes(&self) -> u64 {
        let sum = |sum: u64, region: &Region| sum.wrapping_add(region.size);
        match self {
            RegionTable::Few(list) => list.iter().map(|(_, region)| region).fold(0, sum),
            RegionTable::Many(tree) => tree.values().fold(0, sum),
        }
    }

    /// The region around an address, and the address's offset in it.
    #[inline]
    pub(super) fn find(&self, address: u64) -> Option<(&Region, u64)> {
        match self {
            RegionTable::Few(list) => {
                for (start, region) in list {
                    if let Some(inside) = address.checked_sub(*start).filter(|inside| *inside < region.size) {
                        return Some((region, inside));
                    }
                }
                None
            }
            RegionTable::Many(tree) => {
                let (start, region) = tree.range(..=address).next_back()?;
                let inside = address - start;
                (inside < region.size).then_some((region, inside))
            }
        }
    }

    /// Whether a region has an address between `first` and `end`, both included.
    pub(super) fn overlaps(&self, first: u64, end: u64) -> bool {
        match self {
            RegionTable::Few(list) => {
                list.iter().any(|(start, region)| *start <= end && last(*start, region) >= first)
            }
            RegionTable::Many(tree) => {
                let below = tree.range(..=end).next_back();
                below.is_some_and(|(start, region)| last(*start, region) >= first)
            }
        }
    }

    /// Adds a region that overlaps none.
    pub(super) fn insert(&mut self, start: u64, region: Region) {
        match self {
            RegionTable::Few(list) if list.len() < FEW => list.push((start, region)),
            RegionTable::Few(list) => {
                let mut tree: BTreeMap<u64, Region> = list.drain(..).collect();
                tree.insert(start, region);
                *self = RegionTable::Many(tree);
            }
            RegionTable::Many(tree) => drop(tree.insert(start, region)),
        }
    }

    /// Removes the regions between `first` and `end`, both included, and returns how many bytes that were. `None`: a region
    /// lies there only in part; nothing is removed.
    pub(super) fn remove(&mut self, first: u64, end: u64) -> Option<u64> {
        let splits = |start: u64, region: &Region| start < first || last(start, region) > end;
        match self {
            RegionTable::Few(list) => {
                let inside = |start: u64, region: &Region| start <= end && last(start, region) >= first;
                if list.iter().any(|(start, region)| inside(*start, region) && splits(*start, region)) {
                    return None;
                }
                let mut removed = 0;
                list.retain(|(start, region)| {
                    let goes = inside(*start, region);
                    removed += if goes { region.size } else { 0 };
                    !goes
                });
                Some(removed)
            }
            RegionTable::Many(tree) => {
                let below = tree.range(..first).next_back();
                let reaches_in = below.is_some_and(|(start, region)| last(*start, region) >= first);
                let above = tree.range(first..=end).next_back();
                if reaches_in || above.is_some_and(|(start, region)| splits(*start, region)) {
                    return None;
                }
                let starts: Vec<u64> = tree.range(first..=end).map(|(start, _)| *start).collect();
                Some(starts.iter().filter_map(|start| tree.remove(start)).map(|old| old.size).sum())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(size: u64) -> Region {
        Region { size, offset: 0, read: true, write: true, file: None }
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u64, u64),
        Remove(u64, u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        let range = || (0..200u64, 1..6u64);
        prop_oneof![
            4 => range().prop_map(|(at, len)| Change::Insert(at, len)),
            1 => (range(), 1..10u64).prop_map(|((at, _), len)| Change::Remove(at, at + len - 1)),
        ]
    }

    /// The regions as a map from each address to its region's start.
    type Oracle = BTreeMap<u64, u64>;

    fn same(table: &RegionTable, oracle: &Oracle) {
        for address in 0..250 {
            let found = table.find(address).map(|(_, inside)| address - inside);
            assert_eq!(found, oracle.get(&address).copied(), "address {address}");
        }
        assert_eq!(table.bytes(), oracle.len() as u64);
    }

    proptest! {
        #[test]
        fn list_and_tree_are_the_same_table(changes in prop::collection::vec(change(), 0..120)) {
            let mut tables = [RegionTable::default(), RegionTable::Many(BTreeMap::new())];
            let mut oracle = Oracle::new();
            for change in changes {
                match change {
                    Change::Insert(at, len) => {
                        let taken = oracle.range(at..at + len).next().is_some();
                        for table in &mut tables {
                            assert_eq!(table.overlaps(at, at + len - 1), taken);
                            if !taken {
                                table.insert(at, region(len));
                            }
                        }
                        if !taken {
                            oracle.extend((at..at + len).map(|address| (address, at)));
                        }
                    }
                    Change::Remove(first, end) => {
                        let starts: Vec<u64> = oracle.range(first..=end).map(|(_, start)| *start).collect();
                        let inside = |address: u64| (first..=end).contains(&address);
                        let splits = oracle.iter().any(|(address, start)| starts.contains(start) && !inside(*address));
                        let removed = (!splits).then_some(starts.len() as u64);
                        for table in &mut tables {
                            assert_eq!(table.remove(first, end), removed);
                        }
                        if !splits {
                            oracle.retain(|address, _| !inside(*address));
                        }
                    }
                }
                tables.iter().for_each(|table| same(table, &oracle));
            }
        }
    }
}
