//! How many entries the tables of a datapath have.

/// Entries of each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Flow records, a power of two.
    pub flows: u32,
    /// Tunnels.
    pub tunnels: u32,
    /// Replication groups.
    pub groups: u32,
    /// Slots for peers.
    pub peers: u32,
    /// Vports.
    pub vports: u32,
    /// Pending slots.
    pub pending: u32,
}

impl TableSizes {
    /// The sizes of a NIC with `1 << flows_log2` flow records: between 2^6 and 2^19, 0 means 2^17.
    pub const fn new(flows_log2: u32) -> Self {
        let log2 = if flows_log2 == 0 {
            17
        } else if flows_log2 < 6 {
            6
        } else if flows_log2 > 19 {
            19
        } else {
            flows_log2
        };
        TableSizes { flows: 1 << log2, tunnels: 4096, groups: 1024, peers: 8192, vports: 1024, pending: 1024 }
    }
}
