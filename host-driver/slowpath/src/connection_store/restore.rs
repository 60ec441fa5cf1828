//! Taking the connections of a former daemon over, and keeping those of this one for the next.

use std::collections::BTreeSet;

use culvert_packet::VportId;
use culvert_policy::{Connection, ConnectionId, Snapshot, allows};

use super::ConnectionFile;
use super::format::Identity;
use super::former::Former;
use crate::policy::HostPolicy;

/// What has become of a former daemon's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Those that go on.
    pub taken: usize,
    /// Those whose time was over.
    pub expired: usize,
    /// Those of vports that are gone or somebody else's, or that the policy no longer allows.
    pub refused: usize,
    /// Those for which the table has no room.
    pub no_room: usize,
    /// Slots that were not whole.
    pub torn: usize,
}

impl HostPolicy {
    /// Keeps connections in a file, and takes those that are there over with [`restore`](Self::restore).
    pub fn kept_in(mut self, file: ConnectionFile) -> Self {
        self.file = Some(file);
        self
    }

    /// Takes the connections over that a former daemon has left, as far as the policy in force allows them: it may be
    /// another one than theirs. `clock` is the system's monotonic clock in milliseconds, `now` the slow path's time.
    ///
    /// To be called when the first policy is in force, before packets are decided on; from then on connections are kept.
    /// Later calls do nothing.
    pub fn restore(&mut self, now: u32, clock: u64) -> Restored {
        let mut restored = Restored::default();
        let Some(snapshot) = self.snapshot().cloned() else { return restored };
        let Some(mut file) = self.file.take_if(|file| file.is_first()) else { return restored };
        let begun = file.begin(now, clock).or_else(|_| {
            // The former file may have the room that this one needs.
            file.give_up();
            file.begin(now, clock)
        });
        for (id, vport) in &snapshot.vports {
            file.vport(*id, Some(Identity { mac: vport.mac, vsid: vport.vsid }));
        }
        if let Some(former) = file.take_former() {
            restored.torn = former.torn;
            for (connection, seen) in &former.connections {
                let timeout = self.connections.timeout(connection);
                let Some(idle) = idle(*seen, timeout, former.alive, clock) else {
                    restored.expired += 1;
                    continue;
                };
                if !is_of(&former, &snapshot, connection) {
                    restored.refused += 1;
                    continue;
                }
                let known = Connection { last_seen: now.wrapping_sub(idle), ..*connection };
                let Some(id) = self.connections.restore(&known, now) else {
                    restored.no_room += 1;
                    continue;
                };
                file.put_seen(id, connection, *seen);
                restored.taken += 1;
            }
        }
        if let Err(error) = begun.and_then(|()| file.publish()) {
            tracing::warn!(%error, "connections are not kept for the next start");
            file.give_up();
        }
        self.file = Some(file);
        if restored != Restored::default() {
            let Restored { taken, expired, refused, no_room, torn } = restored;
            tracing::info!(taken, expired, refused, no_room, torn, "connections of a former daemon");
        }
        restored
    }

    /// Writes a connection as it is now.
    pub(crate) fn keep(&mut self, id: ConnectionId) {
        if let Some(file) = &mut self.file
            && let Some(connection) = self.connections.get(id)
        {
            file.put(id, connection);
        }
    }

    /// Writes who the vports are, the connections of those that are not what they were having ended.
    pub(crate) fn keep_vports(&mut self, old: Option<&Snapshot>, new: &Snapshot) {
        let Some(file) = &mut self.file else { return };
        let before = old.into_iter().flat_map(|s| s.vports.keys());
        let all: BTreeSet<VportId> = before.chain(new.vports.keys()).copied().collect();
        for id in all {
            let identity = new.vports.get(&id).map(|v| Identity { mac: v.mac, vsid: v.vsid });
            file.vport(id, identity);
        }
    }

    /// Says to a later daemon that this one is alive, at this time of the system's clock. To be called every second.
    pub fn keep_alive(&mut self, clock: u64) {
        if let Some(file) = &mut self.file {
            file.alive(clock);
        }
    }
}

/// How long a connection was idle, in milliseconds; `None`: for its time-out.
///
/// A record may have served it after it was last `seen`: whether one did was asked when its time was over. So until then it
/// counts as in use, as long as its daemon was `alive`, but no longer than that: what nothing passes of is not kept alive by
/// daemons that are started again and again.
fn idle(seen: u32, timeout: u32, alive: u64, clock: u64) -> Option<u32> {
    // One that was seen since the daemon last said that it is alive has a negative age.
    let age = (alive as u32).wrapping_sub(seen).cast_signed().max(0).cast_unsigned();
    let idle = clock.saturating_sub(alive).saturating_add(age.saturating_sub(timeout).into());
    u32::try_from(idle).ok().filter(|idle| *idle < timeout)
}

/// Whether the vports of a connection are who they were, one of them its owner, and may have it.
fn is_of(former: &Former, snapshot: &Snapshot, connection: &Connection) -> bool {
    let same = |id: &VportId| {
        let vport = snapshot.vports.get(id);
        let now = vport.map(|v| Identity { mac: v.mac, vsid: v.vsid });
        now.is_some() && now == former.vports.get(id).copied()
    };
    let ends = snapshot.local_ends(&connection.ends);
    let mut here = ends.iter().flatten();
    ends.contains(&Some(connection.owner)) && here.all(same) && allows(snapshot, &connection.ends)
}
