//! A set of prefixes that do not overlap.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_packet::Prefix;

/// Prefixes that do not overlap, each with a value; looked up in logarithmic time.
pub(super) struct DisjointPrefixes<T> {
    /// By lowest address. IPv4 sorts before IPv6.
    by_address: BTreeMap<IpAddr, (Prefix, T)>,
}

impl<T> Default for DisjointPrefixes<T> {
    fn default() -> Self {
        Self { by_address: BTreeMap::new() }
    }
}

impl<T> DisjointPrefixes<T> {
    /// One that overlaps `prefix`: the nearest below, or the first inside.
    pub(super) fn overlapping(&self, prefix: &Prefix) -> Option<(&Prefix, &T)> {
        let below = self.by_address.range(..=prefix.addr()).next_back();
        let inside = self.by_address.range(prefix.addr()..=prefix.last()).next();
        let found = below.into_iter().chain(inside).find(|(_, (known, _))| known.overlaps(prefix));
        found.map(|(_, (known, value))| (known, value))
    }

    /// The one that contains an address.
    pub(super) fn containing(&self, address: IpAddr) -> Option<&T> {
        let (_, (prefix, value)) = self.by_address.range(..=address).next_back()?;
        prefix.contains(address).then_some(value)
    }

    /// Adds one that overlaps none.
    pub(super) fn insert(&mut self, prefix: Prefix, value: T) {
        self.by_address.insert(prefix.addr(), (prefix, value));
    }
}
