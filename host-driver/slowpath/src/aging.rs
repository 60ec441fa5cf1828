//! Aging: removes connections that are idle, after a check that the NIC has forwarded nothing for them either.

use std::collections::HashMap;

use culvert_flow::FlowKey;
use culvert_offload::{FlowCommand, OffloadNic, Scan};

use crate::engine::Engine;
use crate::policy::{ExpiredConnection, Policy};

/// Milliseconds between two rounds of aging, and the longest sleep of the slow path.
pub const AGING_INTERVAL_MS: u32 = 1000;
/// Milliseconds between two sweeps of records without a connection.
pub const SWEEP_INTERVAL_MS: u32 = 60_000;
/// Idle milliseconds after which a record without a connection is deleted.
const ORPHAN_IDLE_MS: u32 = 180_000;
/// Connections or records checked in one call.
const MAX_CHECKED: usize = 1024;

impl<P: Policy> Engine<P> {
    /// Checks connections whose time-out is over. A connection whose records have counted packets since the last check
    /// stays; otherwise it is removed with its records. `true`: more connections may be due.
    ///
    /// # Errors
    /// The NIC does not answer; no connection is removed.
    pub fn age(&mut self, nic: &dyn OffloadNic, now: u32) -> culvert_offload::Result<bool> {
        let expired = self.policy.expired(now, MAX_CHECKED);
        if expired.is_empty() {
            return Ok(self.policy.is_behind());
        }
        let keys: Vec<FlowKey> =
            expired.iter().filter(|e| !e.is_closed).flat_map(|e| e.keys.into_iter().flatten()).collect();
        let records = if keys.is_empty() { Vec::new() } else { nic.find(&keys)? };
        let mut packets: HashMap<FlowKey, u64> = HashMap::with_capacity(records.len());
        for record in &records {
            // Packets of a pending record are on their way.
            let count = if record.hot.pending == 0 { record.hot.packets } else { u64::MAX };
            packets.insert(record.key, count);
        }
        self.remove_idle(&expired, &packets, now);
        Ok(expired.len() == MAX_CHECKED || self.policy.is_behind())
    }

    /// Deletes idle records that belong to no connection, such as those of broadcasts.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn sweep_orphans(&mut self, nic: &dyn OffloadNic) -> culvert_offload::Result<()> {
        let idle = nic.scan(Scan::Idle(ORPHAN_IDLE_MS), MAX_CHECKED)?;
        let orphans: Vec<FlowKey> =
            idle.iter().filter(|r| !self.policy.contains(r.cold.connection)).map(|r| r.key).collect();
        if !orphans.is_empty() {
            self.commands.push(FlowCommand::Delete(orphans));
        }
        Ok(())
    }

    fn remove_idle(&mut self, expired: &[ExpiredConnection], packets: &HashMap<FlowKey, u64>, now: u32) {
        let mut deleted = Vec::new();
        for e in expired {
            let keys = e.keys.into_iter().flatten();
            let count = keys.filter_map(|k| packets.get(&k)).fold(0u64, |sum, n| sum.saturating_add(*n));
            let before = self.aged_packets.get(&e.connection).copied().unwrap_or(0);
            // An evicted record counts from 0 again: a lower count is a sign of use, too.
            if !e.is_closed && count != before && count != 0 {
                self.aged_packets.insert(e.connection, count);
                self.policy.touch(e.connection, now);
                continue;
            }
            self.aged_packets.remove(&e.connection);
            self.policy.remove(e.connection);
            deleted.extend(e.keys.into_iter().flatten());
        }
        if !deleted.is_empty() {
            self.commands.push(FlowCommand::Delete(deleted));
        }
    }
}
