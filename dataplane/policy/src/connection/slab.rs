//! A slab of connections: numbered places, reused with a new sequence number.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Connection, ConnectionId};

/// Places allocated at a time, so that none moves when the slab grows.
const CHUNK: usize = 1024;
/// Largest sequence number: bit 63 of an identifier has another meaning.
const LAST: u32 = u32::MAX >> 1;
/// The end of the list of free places.
const NONE: u32 = u32::MAX;

/// A place.
#[derive(Clone, Debug)]
struct Place {
    /// Identifier of the connection that is, or was, there.
    id: u64,
    /// The last sequence number used here.
    sequence: u32,
    /// The next free place, if this one is free.
    next: u32,
    connection: Option<Connection>,
}

/// Connections by identifier: the place in its lower half, the place's sequence number in the upper. Connections with
/// identifiers of an earlier daemon are found through a list of their own.
#[derive(Clone, Debug)]
pub(super) struct Slab {
    chunks: Vec<Vec<Place>>,
    free: u32,
    /// Places used so far.
    places: u32,
    len: usize,
    /// The last sequence number of an earlier daemon, for places that were never used.
    floor: u32,
    foreign: BTreeMap<u64, u32>,
}

impl Slab {
    pub(super) fn new() -> Self {
        Slab { chunks: Vec::new(), free: NONE, places: 0, len: 0, floor: 0, foreign: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn place(&self, n: u32) -> Option<&Place> {
        self.chunks.get(n as usize / CHUNK)?.get(n as usize % CHUNK)
    }

    fn place_mut(&mut self, n: u32) -> Option<&mut Place> {
        self.chunks.get_mut(n as usize / CHUNK)?.get_mut(n as usize % CHUNK)
    }

    /// The connection at a place.
    pub(super) fn at(&self, n: u32) -> Option<(ConnectionId, &Connection)> {
        let place = self.place(n)?;
        place.connection.as_ref().map(|c| (ConnectionId(place.id), c))
    }

    /// The connection at a place, mutable.
    pub(super) fn at_mut(&mut self, n: u32) -> Option<&mut Connection> {
        self.place_mut(n)?.connection.as_mut()
    }

    /// The place of a connection.
    pub(super) fn find(&self, id: ConnectionId) -> Option<u32> {
        let here = |n: u32| self.place(n).is_some_and(|p| p.id == id.0 && p.connection.is_some());
        let n = id.0 as u32;
        if here(n) {
            return Some(n);
        }
        self.foreign.get(&id.0).copied()
    }

    /// The identifier of the next connection.
    pub(super) fn next_id(&self) -> ConnectionId {
        let (n, last) = match self.place(self.free) {
            Some(place) => (self.free, place.sequence),
            None => (self.places, self.floor),
        };
        let after = |sequence: u32| if sequence >= LAST { 1 } else { sequence + 1 };
        let mut sequence = after(last);
        loop {
            let id = u64::from(sequence) << 32 | u64::from(n);
            if !self.foreign.contains_key(&id) {
                return ConnectionId(id);
            }
            sequence = after(sequence);
        }
    }

    /// Inserts a connection at a free place, and returns the place.
    pub(super) fn insert(&mut self, id: ConnectionId, connection: Connection) -> u32 {
        let (n, floor) = (self.free, self.floor);
        let own = id == self.next_id();
        let sequence = |last: u32| if own { (id.0 >> 32) as u32 } else { last };
        let n = match self.place_mut(n) {
            Some(place) => {
                let (next, sequence) = (place.next, sequence(place.sequence));
                *place = Place { id: id.0, sequence, next: NONE, connection: Some(connection) };
                self.free = next;
                n
            }
            None => {
                let n = self.places;
                if n as usize / CHUNK == self.chunks.len() {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                let sequence = sequence(floor);
                let place = Place { id: id.0, sequence, next: NONE, connection: Some(connection) };
                self.chunks[n as usize / CHUNK].push(place);
                self.places += 1;
                n
            }
        };
        if !own {
            self.foreign.insert(id.0, n);
        }
        self.len += 1;
        n
    }

    /// Notes an identifier of an earlier daemon: new ones differ from it.
    pub(super) fn avoid(&mut self, id: ConnectionId) {
        self.floor = self.floor.max((id.0 >> 32) as u32 & LAST);
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, n: u32) -> Option<Connection> {
        let free = self.free;
        let place = self.place_mut(n)?;
        let gone = place.connection.take()?;
        place.next = free;
        let id = place.id;
        self.free = n;
        self.len -= 1;
        if !self.foreign.is_empty() {
            self.foreign.remove(&id);
        }
        Some(gone)
    }

    /// All connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        let all = self.chunks.iter().flatten();
        all.filter_map(|place| place.connection.as_ref().map(|c| (ConnectionId(place.id), c)))
    }
}
