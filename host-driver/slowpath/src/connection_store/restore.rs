//! Takes over the connections that the previous daemon stored.

use culvert_policy::{Connection, Connections, Snapshot, allows};

use super::file::ConnectionFile;
use super::format::VportIdentity;
use super::previous::PreviousConnections;

/// What became of the previous daemon's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Taken over.
    pub restored: usize,
    /// Idle for their time-out.
    pub expired: usize,
    /// Of vports that are gone or are another VM's now, or denied by the policy.
    pub denied: usize,
    /// Beyond the limits of the connection table.
    pub no_room: usize,
    /// Corrupt entries of the file.
    pub corrupt: usize,
}

/// Takes over the stored connections that the policy allows, and starts to store those of this daemon. `clock` is the
/// system's monotonic clock in milliseconds, `now` the slow path's time. Only the first call does anything.
pub(crate) fn restore(
    file: &mut ConnectionFile,
    connections: &mut Connections,
    snapshot: &Snapshot,
    now: u32,
    clock: u64,
) -> Restored {
    let mut counts = Restored::default();
    if !file.is_first_use() {
        return counts;
    }
    let begun = file.begin(now, clock).or_else(|_| {
        // The previous file may occupy the room that this one needs.
        file.remove();
        file.begin(now, clock)
    });
    for (id, vport) in &snapshot.vports {
        file.put_vport(*id, Some(VportIdentity { mac: vport.mac, vsid: vport.vsid }));
    }
    if let Some(previous) = file.take_previous() {
        counts.corrupt = previous.corrupt;
        for (connection, last_seen) in &previous.connections {
            let timeout = connections.timeout(connection);
            let Some(idle) = idle_ms(*last_seen, timeout, previous.alive, clock) else {
                counts.expired += 1;
                continue;
            };
            if !is_allowed(&previous, snapshot, connection) {
                counts.denied += 1;
                continue;
            }
            let restored = Connection { last_seen: now.wrapping_sub(idle), ..*connection };
            let Some(id) = connections.restore(&restored, now) else {
                counts.no_room += 1;
                continue;
            };
            file.put_seen_at(id, connection, *last_seen);
            counts.restored += 1;
        }
    }
    if let Err(error) = begun.and_then(|()| file.publish()) {
        file.give_up(clock, &error);
    }
    if counts != Restored::default() {
        let Restored { restored, expired, denied, no_room, corrupt } = counts;
        tracing::info!(restored, expired, denied, no_room, corrupt, "saved connections restored");
    }
    counts
}

/// How long a connection was idle, in milliseconds; `None`: for its time-out.
///
/// The NIC's records may have forwarded packets after `last_seen`: a daemon asks them only when the time-out is over. So
/// until then a connection counts as in use, as long as its daemon was `alive`, but no longer: restarts alone do not keep
/// an unused connection.
fn idle_ms(last_seen: u32, timeout: u32, alive: u64, clock: u64) -> Option<u32> {
    // The age is negative if the connection was used after the daemon last wrote that it is alive.
    let age = (alive as u32).wrapping_sub(last_seen).cast_signed().max(0).cast_unsigned();
    let idle = clock.saturating_sub(alive).saturating_add(age.saturating_sub(timeout).into());
    u32::try_from(idle).ok().filter(|idle| *idle < timeout)
}

/// Whether the vports of a connection are the same VMs as before, one of them owns it, and the policy allows it.
fn is_allowed(previous: &PreviousConnections, snapshot: &Snapshot, connection: &Connection) -> bool {
    let is_same = |id: &culvert_packet::VportId| {
        let vport = snapshot.vports.get(id);
        let now = vport.map(|v| VportIdentity { mac: v.mac, vsid: v.vsid });
        now.is_some() && now == previous.vports.get(id).copied()
    };
    let ends = snapshot.local_ends(&connection.ends);
    let mut local = ends.iter().flatten();
    ends.contains(&Some(connection.owner)) && local.all(is_same) && allows(snapshot, &connection.ends)
}
