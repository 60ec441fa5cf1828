//! Counters of a NIC and of its ports.

use std::ops::AddAssign;

use culvert_flow::Port;

/// Counters of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames into the NIC.
    pub in_packets: u64,
    /// Bytes into the NIC.
    pub in_bytes: u64,
    /// Frames out of the NIC.
    pub out_packets: u64,
    /// Bytes out of the NIC.
    pub out_bytes: u64,
    /// Dropped frames.
    pub drops: u64,
}

impl AddAssign for PortCounters {
    fn add_assign(&mut self, more: Self) {
        self.in_packets += more.in_packets;
        self.in_bytes += more.in_bytes;
        self.out_packets += more.out_packets;
        self.out_bytes += more.out_bytes;
        self.drops += more.drops;
    }
}

/// Counters of a whole NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicCounters {
    /// Packets that the NIC handled without the host.
    pub finished: u64,
    /// Packets that it punted to the host.
    pub punted: u64,
    /// The MAC ports.
    pub uplinks: [PortCounters; Port::UPLINKS as usize],
}

impl AddAssign for NicCounters {
    fn add_assign(&mut self, more: Self) {
        self.finished += more.finished;
        self.punted += more.punted;
        self.uplinks.iter_mut().zip(more.uplinks).for_each(|(sum, more)| *sum += more);
    }
}
