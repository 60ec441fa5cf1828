//! The host's policy with its connections, behind the slow path's [`Policy`].

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use culvert_flow::{Classified, Direction, FlowKey, FlowRecord, HashSecret, Port};
use culvert_packet::{Headers, Reason, VportId};
use culvert_policy::connection::{Ends, State};
use culvert_policy::decide as ask;
use culvert_policy::{Connection, ConnectionId, Connections, Effect, Input, Packet, Snapshot, Timeouts};

use crate::connection_store::ConnectionFile;
use crate::decide::{Decision, Expired, Policy, Question};
use crate::forward::Outcome;

/// Bounds of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: usize,
    /// Connections that one vport may have.
    pub per_vport: usize,
    /// When idle ones end.
    pub timeouts: Timeouts,
}

impl Limits {
    /// Connections of one vport, whatever the size of the flow table.
    const MAX_PER_VPORT: usize = 500_000;

    /// For a switch with `flows` records at each worker: a connection has two records.
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

/// What would become of a packet.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The layers that were asked.
    pub layers: Vec<culvert_policy::Step>,
    /// What was decided; `Err`: it does not get as far.
    pub decision: Result<culvert_policy::Decision, Reason>,
    /// The frames that leave, or why there are none. Empty for an answer.
    pub outcome: Outcome,
}

/// The policy in force and the connections that it allowed.
pub struct HostPolicy {
    snapshot: Option<Arc<Snapshot>>,
    pub(crate) connections: Connections,
    /// Where connections are kept for the next daemon.
    pub(crate) file: Option<ConnectionFile>,
    /// Records that the NIC may have of each connection: of the side that spoke first, and of the answers. None: the NIC
    /// keeps what it was given.
    records: Option<HashMap<u64, [Option<FlowRecord>; 2]>>,
}

impl HostPolicy {
    /// No policy, no connections.
    pub fn new(limits: &Limits) -> Self {
        // The standard library's maps have random keys, which are all that it gives of chance.
        let secret = HashSecret(std::array::from_fn(|n| RandomState::new().hash_one(n)));
        HostPolicy {
            snapshot: None,
            connections: Connections::new(limits.connections, limits.per_vport, limits.timeouts, secret),
            file: None,
            records: Some(HashMap::new()),
        }
    }

    /// For a NIC that does not lose its tables as long as this process lives: no records are kept for it.
    pub fn without_records(self) -> Self {
        HostPolicy { records: None, ..self }
    }

    /// The policy in force.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// Takes another policy. Connections of vports that are gone, or now somebody else's, end: returns the keys of their
    /// records.
    pub fn set(&mut self, snapshot: &Arc<Snapshot>) -> Vec<FlowKey> {
        let old = self.snapshot.replace(snapshot.clone());
        let kept = |id: VportId| {
            let before = old.as_ref().and_then(|s| s.vports.get(&id));
            let now = snapshot.vports.get(&id);
            now.is_some_and(|v| before.is_none_or(|b| b.mac == v.mac && b.vsid == v.vsid))
        };
        let ended = |c: &Connection| {
            let sources = c.keys.iter().flatten().filter(|k| k.direction() == Some(Direction::Outbound));
            // One that was restored has no records yet: its addresses say whose it was.
            let is_new = c.keys == [None, None];
            let ends = old.iter().filter(|_| is_new).flat_map(|s| s.local_ends(&c.ends)).flatten();
            let mut all = sources.map(|k| VportId(k.source)).chain(ends);
            !kept(c.owner) || all.any(|id| !kept(id))
        };
        let gone: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| ended(c)).map(|(id, _)| id).collect();
        let mut keys = Vec::new();
        for id in gone {
            keys.extend(self.end(id).into_iter().flat_map(|c| c.keys).flatten());
        }
        self.keep_vports(old.as_deref(), snapshot);
        keys
    }

    /// Asks without doing anything.
    pub fn ask(
        &self,
        c: &Classified,
        input: Port,
        inner: &[u8],
        now: u32,
    ) -> (Vec<culvert_policy::Step>, Result<culvert_policy::Decision, Reason>) {
        let mut layers = Vec::new();
        let decision = match (&self.snapshot, packet(c, input, inner)) {
            (None, _) => Err(Reason::PolicyMissing),
            (_, Err(reason)) => Err(reason),
            (Some(s), Ok(packet)) => Ok(ask(s, &self.connections, &packet, now, &mut layers).0),
        };
        (layers, decision)
    }

    /// The host that has a provider address.
    pub fn peer(&self, pa: IpAddr) -> Option<u16> {
        let peers = &self.snapshot.as_ref()?.peers;
        peers.iter().find(|(_, p)| p.pas.contains(&pa)).map(|(index, _)| *index)
    }

    /// Forgets a connection.
    fn end(&mut self, id: ConnectionId) -> Option<Connection> {
        if let Some(file) = &mut self.file {
            file.clear(id);
        }
        self.forget_records(id.0);
        self.connections.remove(id)
    }

    fn remember(&mut self, record: &FlowRecord) {
        if let Some(records) = &mut self.records
            && let Some((id, reverse)) = ConnectionId::from_cold(record.cold.connection)
            && self.connections.get(id).is_some()
        {
            records.entry(id.0).or_default()[usize::from(reverse)] = Some(*record);
        }
    }

    fn forget_records(&mut self, connection: u64) {
        if let Some(records) = &mut self.records {
            records.remove(&connection);
        }
    }

    /// The connection that a record belongs to, as far as the record knows it.
    fn connection_of(&self, record: &FlowRecord, reverse: bool, now: u32) -> Option<Connection> {
        let s = self.snapshot.as_ref()?;
        let key = &record.key;
        let (rdid, owner) = match key.direction()? {
            Direction::Outbound => {
                let id = VportId(key.source);
                (s.vports.get(&id)?.rdid, id)
            }
            Direction::Inbound => match record.hot.out() {
                Port::Vport(id) => (s.subnets.get(&key.vsid)?.rdid, id),
                _ => return None,
            },
        };
        s.vports.get(&owner)?;
        let v4 = |a: &[u8; 16]| IpAddr::from([a[0], a[1], a[2], a[3]]);
        let (src, dst) = match key.family {
            4 => (v4(&key.src), v4(&key.dst)),
            6 => (IpAddr::from(key.src), IpAddr::from(key.dst)),
            _ => return None,
        };
        // An echo's identifier is both ends' port.
        let from = if matches!(key.protocol, 1 | 58) { key.dst_port } else { key.src_port };
        let ends = Ends { rdid, protocol: key.protocol, first: (src, from), second: (dst, key.dst_port) };
        Some(Connection {
            ends: if reverse { ends.reversed() } else { ends },
            owner,
            state: if key.protocol == 6 { State::Established } else { State::Timed },
            last_seen: now,
            keys: [None, None],
        })
    }
}

impl Policy for HostPolicy {
    fn decide(&mut self, q: &Question<'_>) -> Decision {
        let Some(snapshot) = &self.snapshot else { return Decision::Drop(Reason::PolicyMissing) };
        let packet = match packet(q.packet, q.input, q.inner) {
            Ok(packet) => packet,
            Err(reason) => return Decision::Drop(reason),
        };
        let (decision, effects) = ask(snapshot, &self.connections, &packet, q.now, &mut ());
        self.connections.apply(&effects, q.now);
        if let Some(Effect::Create(id, _) | Effect::Update(id, ..)) = effects {
            self.keep(id);
        }
        match decision {
            culvert_policy::Decision::Drop(reason) => Decision::Drop(reason),
            culvert_policy::Decision::Reply(frame) => Decision::Reply(frame),
            culvert_policy::Decision::Forward(f) => {
                if f.offload.is_ok() {
                    self.remember(&f.record);
                    if let Some(reverse) = &f.reverse {
                        self.remember(reverse);
                    }
                }
                Decision::Forward(f)
            }
        }
    }

    fn control(&mut self, connection: u64, headers: &Headers, now: u32) {
        if let Some((id, reverse)) = ConnectionId::from_cold(connection) {
            self.connections.control(id, reverse, headers.tcp_flags, now);
            self.keep(id);
        }
    }

    fn expired(&mut self, now: u32, limit: usize) -> Vec<Expired> {
        let ids: Vec<ConnectionId> = self.connections.expired(now, limit).collect();
        ids.into_iter()
            .filter_map(|id| {
                let c = self.connections.get(id)?;
                Some(Expired { connection: id.0, keys: c.keys, closed: c.state == State::Closed })
            })
            .collect()
    }

    fn is_behind(&self) -> bool {
        self.connections.is_behind()
    }

    fn knows(&self, connection: u64) -> bool {
        ConnectionId::from_cold(connection).is_some_and(|(id, _)| self.connections.get(id).is_some())
    }

    fn touch(&mut self, connection: u64, now: u32) {
        self.connections.touch(ConnectionId(connection), now);
        self.keep(ConnectionId(connection));
    }

    fn forget(&mut self, connection: u64) {
        self.end(ConnectionId(connection));
    }

    fn connections(&self) -> usize {
        self.connections.len()
    }

    fn records(&self) -> Vec<FlowRecord> {
        self.records.iter().flat_map(HashMap::values).flatten().flatten().copied().collect()
    }

    fn adopt(&mut self, records: &[FlowRecord], now: u32) {
        let mut found: HashMap<u64, Connection> = HashMap::new();
        for record in records.iter().filter(|r| r.hot.pending == 0) {
            let Some((id, reverse)) = ConnectionId::from_cold(record.cold.connection) else { continue };
            let Some(made) = self.connection_of(record, reverse, now) else { continue };
            let connection = found.entry(id.0).or_insert(made);
            if !reverse {
                // The side that spoke first owns it.
                connection.owner = made.owner;
            }
            connection.keys[usize::from(reverse)] = Some(record.key);
        }
        for (id, connection) in found {
            self.connections.adopt(ConnectionId(id), &connection);
        }
        for record in records.iter().filter(|r| r.hot.pending == 0) {
            self.remember(record);
        }
    }
}

fn packet<'p>(c: &Classified, input: Port, inner: &'p [u8]) -> Result<Packet<'p>, Reason> {
    let input = match input {
        Port::Vport(id) => Input::Vport(id),
        Port::Uplink(_) => Input::Wire {
            peer: c.outer.peer,
            encap: c.key.encap().ok_or(Reason::BadDescriptor)?,
            vsid: c.outer.vsid,
        },
        Port::Host | Port::None => return Err(Reason::NoVport),
    };
    Ok(Packet { input, frame: inner, headers: c.headers, key: c.key })
}
