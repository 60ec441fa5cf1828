//! Ageing: connections that seem to have ended are asked for in the NIC, and go when nothing has passed there either.

use std::collections::HashMap;

use culvert_flow::FlowKey;

use crate::decide::{Expired, Policy};
use crate::engine::Engine;
use culvert_offload::{FlowCommand, OffloadNic, Scan};

/// Milliseconds between two agings of connections.
pub const AGING_INTERVAL_MS: u32 = 1000;
/// Milliseconds between two sweeps of records without a connection.
pub const SWEEP_INTERVAL_MS: u32 = 60_000;
/// Milliseconds after which a record without a connection goes.
const ORPHAN_IDLE: u32 = 180_000;
/// Connections looked at in one go.
const AT_A_TIME: usize = 1024;

impl<P: Policy> Engine<P> {
    /// Looks at connections whose time is over. One whose records have counted packets since it was last looked at lives
    /// on; the others' records are deleted. `true`: there may be more of them.
    ///
    /// # Errors
    /// The NIC does not answer; nothing is forgotten.
    pub fn age(&mut self, nic: &dyn OffloadNic, now: u32) -> culvert_offload::Result<bool> {
        let expired = self.policy.expired(now, AT_A_TIME);
        if expired.is_empty() {
            return Ok(self.policy.is_behind());
        }
        let keys: Vec<FlowKey> =
            expired.iter().filter(|e| !e.closed).flat_map(|e| e.keys.into_iter().flatten()).collect();
        let records = if keys.is_empty() { Vec::new() } else { nic.find(&keys)? };
        let mut packets: HashMap<FlowKey, u64> = HashMap::with_capacity(records.len());
        for record in &records {
            // A pending record's packets are on their way.
            let count = if record.hot.pending == 0 { record.hot.packets } else { u64::MAX };
            packets.insert(record.key, count);
        }
        self.sweep(&expired, &packets, now);
        Ok(expired.len() == AT_A_TIME || self.policy.is_behind())
    }

    /// Deletes records that no connection owns, such as those of broadcasts, once they have been idle for long.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn sweep_orphans(&mut self, nic: &dyn OffloadNic) -> culvert_offload::Result<()> {
        let idle = nic.scan(Scan::Idle(ORPHAN_IDLE), AT_A_TIME)?;
        let orphans: Vec<FlowKey> =
            idle.iter().filter(|r| !self.policy.knows(r.cold.connection)).map(|r| r.key).collect();
        if !orphans.is_empty() {
            self.commands.push(FlowCommand::Delete(orphans));
        }
        Ok(())
    }

    fn sweep(&mut self, expired: &[Expired], packets: &HashMap<FlowKey, u64>, now: u32) {
        let mut gone = Vec::new();
        for e in expired {
            let keys = e.keys.into_iter().flatten();
            let count = keys.filter_map(|k| packets.get(&k)).fold(0u64, |sum, n| sum.saturating_add(*n));
            let before = self.seen.get(&e.connection).copied().unwrap_or(0);
            // Records that were evicted count from 0 again: less than before is as much a sign of life as more.
            if !e.closed && count != before && count != 0 {
                self.seen.insert(e.connection, count);
                self.policy.touch(e.connection, now);
                continue;
            }
            self.seen.remove(&e.connection);
            self.policy.forget(e.connection);
            gone.extend(e.keys.into_iter().flatten());
        }
        if !gone.is_empty() {
            self.commands.push(FlowCommand::Delete(gone));
        }
    }
}
