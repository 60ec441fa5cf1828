//! Copies of the flow records of connections, for a NIC that loses its tables when its firmware restarts.

use std::collections::HashMap;

use culvert_flow::FlowRecord;
use culvert_policy::ConnectionId;

/// Flow records by connection: of the initiator's direction, and of the reverse one.
#[derive(Default)]
pub(super) struct RecordCache {
    records: HashMap<u64, [Option<FlowRecord>; 2]>,
}

impl RecordCache {
    pub(super) fn insert(&mut self, id: ConnectionId, reverse: bool, record: &FlowRecord) {
        self.records.entry(id.0).or_default()[usize::from(reverse)] = Some(*record);
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        self.records.remove(&id.0);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &FlowRecord> {
        self.records.values().flatten().flatten()
    }
}
