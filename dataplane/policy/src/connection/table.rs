//! The connection table: bounded in total and for each vport; finds connections by identifier, by ends and by time-out.

use alloc::vec::Vec;
use core::net::IpAddr;

use culvert_flow::HashSecret;
use culvert_packet::VportId;
use hashbrown::HashTable;

use super::slab::Slab;
use super::wheel::Wheel;
use super::{Connection, ConnectionId, Effect, Effects, Ends, Full, State, Timeouts, next_state};

/// Connections examined for each expired one that is returned.
const MAX_POLLS: usize = 4;

/// An entry of the index by ends: the hash, so that growing reads nothing else, and the place.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    at: u32,
}

impl Entry {
    /// The index takes the place from the lower bits and a tag from the upper ones.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// The connections.
#[derive(Clone, Debug)]
pub struct Connections {
    slab: Slab,
    by_ends: HashTable<Entry>,
    wheel: Wheel,
    per_vport: Vec<u32>,
    limit: usize,
    vport_limit: usize,
    timeouts: Timeouts,
    secret: HashSecret,
}

impl Connections {
    /// An empty table for `limit` connections, of which one vport may have `vport_limit`. The secret keeps tenants from
    /// choosing ends that are slow to find.
    pub fn new(limit: usize, vport_limit: usize, timeouts: Timeouts, secret: HashSecret) -> Self {
        Connections {
            slab: Slab::new(),
            by_ends: HashTable::new(),
            wheel: Wheel::new(),
            per_vport: Vec::new(),
            // Places are numbered with 32 bits.
            limit: limit.min(u32::MAX as usize - 1),
            vport_limit,
            timeouts,
            secret,
        }
    }

    /// Count of connections.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether it has no connections.
    pub fn is_empty(&self) -> bool {
        self.slab.len() == 0
    }

    /// A connection by its identifier.
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slab.at(self.slab.find(id)?).map(|(_, c)| c)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.slab.iter()
    }

    /// The connection between two ends, and whether `ends` are seen from the one that answered.
    pub fn find(&self, ends: &Ends) -> Option<(ConnectionId, bool)> {
        let (id, connection) = self.slab.at(self.place(ends)?)?;
        Some((id, connection.ends != *ends))
    }

    /// Where the connection between two ends is, whichever spoke first.
    fn place(&self, ends: &Ends) -> Option<u32> {
        let (hash, reversed) = (self.hash(ends), ends.reversed());
        let same = |e: &Entry| {
            e.hash == hash && self.slab.at(e.at).is_some_and(|(_, c)| c.ends == *ends || c.ends == reversed)
        };
        self.by_ends.find(Entry::spread(hash), same).map(|e| e.at)
    }

    /// The same for both directions.
    fn hash(&self, ends: &Ends) -> u32 {
        let number = |(addr, port): (IpAddr, u16)| match addr {
            IpAddr::V4(a) => (u128::from(a.to_bits()), port),
            IpAddr::V6(a) => (a.to_bits(), port),
        };
        let (a, b) = (number(ends.first), number(ends.second));
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let rdid = u128::from_le_bytes(ends.rdid.0);
        let rest = u64::from(low.1) | u64::from(high.1) << 16 | u64::from(ends.protocol) << 32;
        let [r, l, h] = [rdid, low.0, high.0].map(|w| [w as u64, (w >> 64) as u64]);
        (self.secret.hash(&[r[0], r[1], l[0], l[1], h[0], h[1], rest, 0]) >> 32) as u32
    }

    /// The identifier that the next connection of a vport gets.
    ///
    /// # Errors
    /// There is no room for one.
    pub fn room(&self, owner: VportId) -> Result<ConnectionId, Full> {
        if self.slab.len() >= self.limit {
            return Err(Full::Table);
        }
        if self.per_vport.get(usize::from(owner.0)).is_some_and(|n| *n as usize >= self.vport_limit)
            || self.vport_limit == 0
        {
            return Err(Full::Vport);
        }
        Ok(self.slab.next_id())
    }

    /// Applies the effects of a decision.
    pub fn apply(&mut self, effects: &Effects, now: u32) {
        match effects {
            None => {}
            Some(Effect::Create(id, connection)) => self.insert(*id, connection, now),
            Some(Effect::Update(id, state, keys)) => self.seen(*id, now, |connection| {
                connection.state = *state;
                for (slot, key) in connection.keys.iter_mut().zip(keys) {
                    *slot = key.or(*slot);
                }
            }),
        }
    }

    /// Adopts a connection of an earlier daemon whose records are in the NIC.
    pub fn adopt(&mut self, id: ConnectionId, connection: &Connection) {
        if self.slab.len() < self.limit {
            self.insert(id, connection, connection.last_seen);
        }
        self.slab.avoid(id);
    }

    /// Restores a connection of an earlier daemon of which no record is left, with a new identifier.
    /// `None`: the table is full, or has a connection between these ends. A vport above its share keeps its connections.
    pub fn restore(&mut self, connection: &Connection, now: u32) -> Option<ConnectionId> {
        if self.slab.len() >= self.limit || self.place(&connection.ends).is_some() {
            return None;
        }
        let id = self.slab.next_id();
        self.insert(id, connection, now);
        Some(id)
    }

    fn insert(&mut self, id: ConnectionId, connection: &Connection, now: u32) {
        if self.slab.find(id).is_some() || self.place(&connection.ends).is_some() {
            return;
        }
        let (hash, owner) = (self.hash(&connection.ends), usize::from(connection.owner.0));
        let at = self.slab.insert(id, *connection);
        self.by_ends.insert_unique(Entry::spread(hash), Entry { hash, at }, |e| Entry::spread(e.hash));
        if self.per_vport.len() <= owner {
            self.per_vport.resize(owner + 1, 0);
        }
        self.per_vport[owner] += 1;
        self.wheel.set(at, now, left(&self.timeouts, connection, now));
    }

    /// Removes a connection.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let at = self.slab.find(id)?;
        let gone = self.slab.remove(at)?;
        self.wheel.remove(at);
        let hash = self.hash(&gone.ends);
        if let Ok(entry) = self.by_ends.find_entry(Entry::spread(hash), |e| e.at == at) {
            entry.remove();
        }
        if let Some(count) = self.per_vport.get_mut(usize::from(gone.owner.0)) {
            *count = count.saturating_sub(1);
        }
        Some(gone)
    }

    /// Notes that the NIC forwarded a TCP segment with SYN, FIN or RST. `reverse`: in the answering direction.
    pub fn control(&mut self, id: ConnectionId, reverse: bool, tcp_flags: u8, now: u32) {
        self.seen(id, now, |connection| {
            connection.state = next_state(connection.state, reverse, tcp_flags);
        });
    }

    /// Notes that the NIC forwarded a packet of a connection at `when`.
    pub fn touch(&mut self, id: ConnectionId, when: u32) {
        self.seen(id, when, |_| {});
    }

    fn seen(&mut self, id: ConnectionId, when: u32, change: impl FnOnce(&mut Connection)) {
        if let Some(at) = self.slab.find(id)
            && let Some(connection) = self.slab.at_mut(at)
        {
            change(connection);
            connection.last_seen = when;
            self.wheel.set(at, when, timeout(&self.timeouts, connection));
        }
    }

    /// Time-out of a connection without packets.
    pub fn timeout(&self, connection: &Connection) -> u32 {
        timeout(&self.timeouts, connection)
    }

    /// Connections of which the host has seen no packet for their time-out, at most `limit`. The caller asks the NIC for
    /// later packets: until it notes them, or removes the connections, they are returned again. The time that this takes does
    /// not depend on the number of connections; [`is_behind`](Self::is_behind) tells whether to call again soon.
    pub fn expired(&mut self, now: u32, limit: usize) -> impl Iterator<Item = ConnectionId> + '_ {
        let missing = limit.saturating_sub(self.wheel.due());
        let (slab, timeouts) = (&self.slab, &self.timeouts);
        if missing > 0 {
            self.wheel.turn(now, missing.saturating_mul(MAX_POLLS), |at| {
                slab.at(at).map_or(0, |(_, c)| left(timeouts, c, now))
            });
        }
        self.wheel.all_due().take(limit).filter_map(|at| slab.at(at).map(|(id, _)| id))
    }

    /// Whether [`expired`](Self::expired) did not examine all connections that may have expired.
    pub fn is_behind(&self) -> bool {
        self.wheel.is_behind()
    }
}

/// Milliseconds until a connection expires; 0: it has expired.
fn left(timeouts: &Timeouts, connection: &Connection, now: u32) -> u32 {
    timeout(timeouts, connection).saturating_sub(now.wrapping_sub(connection.last_seen))
}

fn timeout(t: &Timeouts, connection: &Connection) -> u32 {
    match (connection.state, connection.ends.protocol) {
        (State::Opening, _) => t.opening,
        (State::Established, _) => t.established,
        (State::Closing(_), _) => t.closing,
        (State::Closed, _) => t.closed,
        (State::Timed, 17) => t.udp,
        (State::Timed, 1 | 58) => t.icmp,
        (State::Timed, _) => t.other,
    }
}
