//! [`HostPolicy`]: the policy in force and its connections, as the slow path's [`Policy`].

mod adopt;
mod record_cache;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use culvert_flow::{Classified, Direction, FlowKey, FlowRecord, HashSecret, Port};
use culvert_packet::{Headers, Reason, VportId};
use culvert_policy::connection::State;
use culvert_policy::{
    Connection, ConnectionId, Connections, Decision, Effect, Input, Packet, Snapshot, Timeouts, TraceStep,
    decide,
};

use crate::connection_store::{self, ConnectionFile, Restored};
use crate::policy::{DecisionRequest, ExpiredConnection, Policy};
use crate::rule_hits::RuleHits;
use adopt::connections_of;
use record_cache::RecordCache;

/// Limits of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: usize,
    /// Connections of one vport.
    pub per_vport: usize,
    /// Idle times after which connections end.
    pub timeouts: Timeouts,
}

impl Limits {
    /// Limit of a vport's connections, whatever the size of the flow table.
    const MAX_PER_VPORT: usize = 500_000;

    /// Limits for a switch whose workers have `flows` records each: a connection has two records.
    pub fn for_switch(flows: u32, workers: usize) -> Self {
        let flows = flows as usize;
        let per_vport = (flows / 4).min(Self::MAX_PER_VPORT);
        Limits { connections: flows / 2 * workers, per_vport, ..Limits::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 1 << 17, per_vport: 1 << 15, timeouts: Timeouts::default() }
    }
}

/// The policy in force and the connections that it allowed.
pub struct HostPolicy {
    snapshot: Option<Arc<Snapshot>>,
    connections: Connections,
    /// Stores connections for the next daemon.
    file: Option<ConnectionFile>,
    /// Flow records for a NIC that may lose its tables. `None`: this NIC does not.
    records: Option<RecordCache>,
    /// How often each rule decided.
    hits: RuleHits,
}

impl HostPolicy {
    /// No policy, no connections.
    pub fn new(limits: &Limits) -> Self {
        // The standard library has no other source of randomness than the keys of its maps.
        let secret = HashSecret(std::array::from_fn(|n| RandomState::new().hash_one(n)));
        HostPolicy {
            snapshot: None,
            connections: Connections::new(limits.connections, limits.per_vport, limits.timeouts, secret),
            file: None,
            records: Some(RecordCache::default()),
            hits: RuleHits::default(),
        }
    }

    /// Keeps no copies of flow records: the NIC does not lose its tables while this process lives.
    #[must_use]
    pub fn without_records(self) -> Self {
        HostPolicy { records: None, ..self }
    }

    /// Stores connections in a file. [`restore`](Self::restore) takes over those that it has.
    #[must_use]
    pub fn stored_in(self, file: ConnectionFile) -> Self {
        HostPolicy { file: Some(file), ..self }
    }

    /// Replaces the policy. Connections of vports that are gone, or are another VM's now, end: returns the keys of their
    /// records.
    pub fn set(&mut self, snapshot: &Arc<Snapshot>) -> Vec<FlowKey> {
        let old = self.snapshot.replace(snapshot.clone());
        self.hits.retain(snapshot);
        let is_same = |id: VportId| {
            let before = old.as_ref().and_then(|s| s.vports.get(&id));
            let now = snapshot.vports.get(&id);
            now.is_some_and(|v| before.is_none_or(|b| b.mac == v.mac && b.vsid == v.vsid))
        };
        let has_ended = |c: &Connection| {
            let sources = c.keys.iter().flatten().filter(|k| k.direction() == Some(Direction::Outbound));
            // A restored connection has no records yet: its addresses tell its vports.
            let is_restored = c.keys == [None, None];
            let ends = old.iter().filter(|_| is_restored).flat_map(|s| s.local_ends(&c.ends)).flatten();
            let mut vports = sources.map(|k| VportId(k.source)).chain(ends);
            !is_same(c.owner) || vports.any(|id| !is_same(id))
        };
        let ended: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| has_ended(c)).map(|(id, _)| id).collect();
        let mut keys = Vec::new();
        for id in ended {
            keys.extend(self.end(id).into_iter().flat_map(|c| c.keys).flatten());
        }
        if let Some(file) = &mut self.file {
            file.put_vports(old.as_deref(), snapshot);
        }
        keys
    }

    /// Takes over the connections that the previous daemon stored, as far as the policy in force allows them. `clock` is
    /// the system's monotonic clock in milliseconds, `now` the slow path's time.
    ///
    /// Call it when the first policy is in force, before packets are decided on; from then on connections are stored.
    /// Later calls do nothing.
    pub fn restore(&mut self, now: u32, clock: u64) -> Restored {
        match (&mut self.file, &self.snapshot) {
            (Some(file), Some(snapshot)) => {
                connection_store::restore(file, &mut self.connections, snapshot, now, clock)
            }
            _ => Restored::default(),
        }
    }

    /// Tells the next daemon that this one was alive at this time of the system's clock, which is the slow path's `now`.
    /// Writes the file anew if it was damaged. Call it every second.
    pub fn keep_alive(&mut self, now: u32, clock: u64) {
        if let Some(file) = &mut self.file
            && file.put_alive(clock)
        {
            file.write_anew(self.connections.iter(), self.snapshot.as_deref(), now, clock);
        }
    }

    /// Saves what has changed, before the packets leave that the changes decide on.
    pub(crate) fn save(&mut self) {
        if let Some(file) = &mut self.file {
            file.flush();
        }
    }

    /// How often each rule decided.
    pub(crate) fn hits(&self) -> RuleHits {
        self.hits.clone()
    }

    /// What is wrong with the state that outlives this daemon.
    pub(crate) fn problem(&self) -> Option<String> {
        self.file.as_ref()?.problem()
    }

    /// Decides on a packet without changing anything. Returns the policy's layers and the decision.
    pub(crate) fn evaluate(
        &self,
        c: &Classified,
        input: Port,
        inner_frame: &[u8],
        now: u32,
    ) -> (Vec<TraceStep>, Result<Decision, Reason>) {
        let mut layers = Vec::new();
        let decision = match (&self.snapshot, packet(c, input, inner_frame)) {
            (None, _) => Err(Reason::PolicyMissing),
            (_, Err(reason)) => Err(reason),
            (Some(s), Ok(packet)) => Ok(decide(s, &self.connections, &packet, now, &mut layers).0),
        };
        (layers, decision)
    }

    /// The number of the host that has a provider address.
    pub(crate) fn peer(&self, pa: IpAddr) -> Option<u16> {
        let peers = &self.snapshot.as_ref()?.peers;
        peers.iter().find(|(_, p)| p.pas.contains(&pa)).map(|(index, _)| *index)
    }

    /// Removes a connection, also from the file.
    fn end(&mut self, id: ConnectionId) -> Option<Connection> {
        if let Some(file) = &mut self.file {
            file.clear(id);
        }
        if let Some(records) = &mut self.records {
            records.remove(id);
        }
        self.connections.remove(id)
    }

    /// Stores a connection as it is now.
    fn store(&mut self, id: ConnectionId) {
        if let Some(file) = &mut self.file
            && let Some(connection) = self.connections.get(id)
        {
            file.put(id, connection);
        }
    }

    /// Keeps a copy of a flow record whose connection exists.
    fn cache_record(&mut self, record: &FlowRecord) {
        if let Some(records) = &mut self.records
            && let Some((id, reverse)) = ConnectionId::from_cold(record.cold.connection)
            && self.connections.get(id).is_some()
        {
            records.insert(id, reverse, record);
        }
    }
}

impl Policy for HostPolicy {
    fn decide(&mut self, request: &DecisionRequest<'_>) -> Decision {
        let Some(snapshot) = &self.snapshot else { return Decision::Drop(Reason::PolicyMissing) };
        let packet = match packet(request.packet, request.input, request.inner_frame) {
            Ok(packet) => packet,
            Err(reason) => return Decision::Drop(reason),
        };
        let (decision, effects) = decide(snapshot, &self.connections, &packet, request.now, &mut &self.hits);
        self.connections.apply(&effects, request.now);
        if let Some(Effect::Create(id, _) | Effect::Update(id, ..)) = effects {
            self.store(id);
        }
        if let Decision::Forward(f) = &decision
            && f.offload.is_ok()
        {
            self.cache_record(&f.record);
            if let Some(reverse) = &f.reverse {
                self.cache_record(reverse);
            }
        }
        decision
    }

    fn tcp_control(&mut self, connection: u64, headers: &Headers, now: u32) {
        if let Some((id, reverse)) = ConnectionId::from_cold(connection) {
            self.connections.control(id, reverse, headers.tcp_flags, now);
            self.store(id);
        }
    }

    fn expired(&mut self, now: u32, limit: usize) -> Vec<ExpiredConnection> {
        let ids: Vec<ConnectionId> = self.connections.expired(now, limit).collect();
        ids.into_iter()
            .filter_map(|id| {
                let c = self.connections.get(id)?;
                let is_closed = c.state == State::Closed;
                Some(ExpiredConnection { connection: id.0, keys: c.keys, is_closed })
            })
            .collect()
    }

    fn is_behind(&self) -> bool {
        self.connections.is_behind()
    }

    fn contains(&self, connection: u64) -> bool {
        ConnectionId::from_cold(connection).is_some_and(|(id, _)| self.connections.get(id).is_some())
    }

    fn touch(&mut self, connection: u64, now: u32) {
        self.connections.touch(ConnectionId(connection), now);
        self.store(ConnectionId(connection));
    }

    fn remove(&mut self, connection: u64) {
        self.end(ConnectionId(connection));
    }

    fn connections(&self) -> usize {
        self.connections.len()
    }

    fn records(&self) -> Vec<FlowRecord> {
        self.records.iter().flat_map(RecordCache::iter).copied().collect()
    }

    fn adopt(&mut self, records: &[FlowRecord], now: u32) {
        if let Some(snapshot) = &self.snapshot {
            for (id, connection) in connections_of(snapshot, records, now) {
                self.connections.adopt(id, &connection);
            }
        }
        for record in records.iter().filter(|r| r.hot.pending == 0) {
            self.cache_record(record);
        }
    }
}

/// A packet as the policy takes it.
fn packet<'p>(c: &Classified, input: Port, inner_frame: &'p [u8]) -> Result<Packet<'p>, Reason> {
    let input = match input {
        Port::Vport(id) => Input::Vport(id),
        Port::Uplink(_) => Input::Wire {
            peer: c.outer.peer,
            encap: c.key.encap().ok_or(Reason::BadDescriptor)?,
            vsid: c.outer.vsid,
        },
        Port::Host | Port::None => return Err(Reason::NoVport),
    };
    Ok(Packet { input, frame: inner_frame, headers: c.headers, key: c.key })
}
