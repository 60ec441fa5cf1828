//! Adoption: rebuilds connections from the flow records that a running NIC has kept.

use std::collections::HashMap;
use std::net::IpAddr;

use culvert_flow::{Direction, FlowRecord, Port};
use culvert_packet::VportId;
use culvert_policy::connection::{Ends, State};
use culvert_policy::{Connection, ConnectionId, Snapshot};

/// The connections that flow records belong to. Pending records are left out.
pub(super) fn connections_of(
    snapshot: &Snapshot,
    records: &[FlowRecord],
    now: u32,
) -> Vec<(ConnectionId, Connection)> {
    let mut found: HashMap<u64, Connection> = HashMap::new();
    for record in records.iter().filter(|r| r.hot.pending == 0) {
        let Some((id, reverse)) = ConnectionId::from_cold(record.cold.connection) else { continue };
        let Some(made) = connection_of(snapshot, record, reverse, now) else { continue };
        let connection = found.entry(id.0).or_insert(made);
        if !reverse {
            // The initiator's vport owns it.
            connection.owner = made.owner;
        }
        connection.keys[usize::from(reverse)] = Some(record.key);
    }
    found.into_iter().map(|(id, connection)| (ConnectionId(id), connection)).collect()
}

/// The connection that a record belongs to, as far as the record tells it.
fn connection_of(snapshot: &Snapshot, record: &FlowRecord, reverse: bool, now: u32) -> Option<Connection> {
    let key = &record.key;
    let (rdid, owner) = match key.direction()? {
        Direction::Outbound => {
            let id = VportId(key.source);
            (snapshot.vports.get(&id)?.rdid, id)
        }
        Direction::Inbound => match record.hot.out() {
            Port::Vport(id) => (snapshot.subnets.get(&key.vsid)?.rdid, id),
            _ => return None,
        },
    };
    snapshot.vports.get(&owner)?;
    let v4 = |a: &[u8; 16]| IpAddr::from([a[0], a[1], a[2], a[3]]);
    let (src, dst) = match key.family {
        4 => (v4(&key.src), v4(&key.dst)),
        6 => (IpAddr::from(key.src), IpAddr::from(key.dst)),
        _ => return None,
    };
    // An ICMP echo has one identifier: it stands for both ports.
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
