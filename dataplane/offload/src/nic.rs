//! The three traits of a NIC: `FlowTables`, `PacketIo` and `DeviceInfo`.

use std::ops::ControlFlow;

use culvert_flow::tables::Vport;
use culvert_flow::{FlowKey, FlowRecord, Port};
use culvert_packet::{MacAddr, Reason, VportId};

use crate::{
    EventQueue, FlowCommand, NicCounters, PortCounters, Reading, Result, TableWrite, UpcallQueue, VmqQueue,
    VportReading,
};

/// Which records a scan returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// All of them.
    All,
    /// Records that are not pending and that no packet has used for this many milliseconds.
    Idle(u32),
}

impl Scan {
    /// Whether the scan returns a record at the NIC's time `now`, in milliseconds.
    pub fn includes(self, record: &FlowRecord, now: u32) -> bool {
        match self {
            Scan::All => true,
            Scan::Idle(ms) => record.hot.pending == 0 && now.wrapping_sub(record.hot.last_used) >= ms,
        }
    }
}

/// Milliseconds since a packet has used a record, at the NIC's time `now`. 0 for a packet that overtook the reading.
pub fn idle_ms(now: u32, record: &FlowRecord) -> u32 {
    let idle = now.wrapping_sub(record.hot.last_used);
    if idle < u32::MAX / 2 { idle } else { 0 }
}

/// Writes and reads a NIC's tables, and executes flow commands.
///
/// # Errors
/// All calls fail when the NIC does not run, refuses, or does not answer in time.
#[expect(clippy::missing_errors_doc, reason = "the trait's documentation names the errors of all calls")]
pub trait FlowTables {
    /// Queues commands, in order. Does not wait for their completion.
    fn execute(&self, commands: Vec<FlowCommand>) -> Result<()>;
    /// Writes a table and waits for completion.
    fn write(&self, write: TableWrite<'_>) -> Result<()>;
    /// Inserts records and waits for completion.
    fn insert(&self, records: &[FlowRecord]) -> Result<()>;
    /// The records of these keys, as far as they exist.
    fn find(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>>;
    /// Shows each record of the whole table to `each`, with the milliseconds since a packet has used it, until `each` breaks
    /// off. The NIC reads a bounded part of the table at a time, and forwards packets between two parts.
    fn visit(&self, scan: Scan, each: &mut dyn FnMut(&FlowRecord, u32) -> ControlFlow<()>) -> Result<()>;
    /// Records of the whole table, at most `limit`.
    fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<FlowRecord>> {
        let mut found = Vec::new();
        if limit > 0 {
            self.visit(scan, &mut |record, _| {
                found.push(*record);
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(found)
    }
    /// Waits until all earlier commands and writes are done.
    fn fence(&self) -> Result<()>;
    /// Starts forwarding.
    fn start(&self) -> Result<()>;
}

/// Receives packets from a NIC and enqueues packets to it.
#[expect(clippy::missing_errors_doc, reason = "each call names its errors in its text")]
pub trait PacketIo {
    /// The queue of upcalls. Only the first call returns it.
    fn upcalls(&self) -> Option<Box<dyn UpcallQueue>>;
    /// Opens a VMQ. Fails if the NIC has none with this number.
    fn vmq(&self, n: u16) -> Result<Box<dyn VmqQueue>>;
    /// Enqueues a frame, in two parts, that a vport's VM sent. `false`: the queue is full, try again. The NIC sees the
    /// frame after [`doorbell`](Self::doorbell). Fails if the frame is too long or the device is lost.
    fn enqueue(&self, vport: VportId, parts: [&[u8]; 2]) -> Result<bool> {
        let _ = (vport, parts);
        Ok(false)
    }
    /// Reports frames from or to a vport's VM that the host dropped; the NIC counts them. `false`: the queue is full, try
    /// again. Fails if the device is lost.
    fn enqueue_drops(&self, vport: VportId, reason: Reason, count: u32) -> Result<bool> {
        let _ = (vport, reason, count);
        Ok(false)
    }
    /// Tells the NIC about enqueued frames. Fails if the device is lost.
    fn doorbell(&self) -> Result<()> {
        Ok(())
    }
}

/// Sizes of a NIC's tables, and their lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Number of MAC ports.
    pub uplinks: u8,
    /// Number of flow records.
    pub flow_records: u32,
    /// Number of flow records of a vport for which the policy names no quota.
    pub flow_records_per_vport: u32,
    /// Whether the NIC can lose its tables while this process runs. The slow path then writes them again.
    pub is_volatile: bool,
}

/// Reads a NIC's capabilities, state and counters.
///
/// # Errors
/// All calls fail when the NIC does not answer.
#[expect(clippy::missing_errors_doc, reason = "the trait's documentation names the errors of all calls")]
pub trait DeviceInfo {
    /// The NIC's capabilities.
    fn capabilities(&self) -> Capabilities;
    /// Whether the NIC has kept tables that a previous daemon wrote.
    fn is_adopted(&self) -> bool;
    /// Whether the NIC accepts commands.
    fn is_alive(&self) -> bool;
    /// The distributed router's MAC.
    fn router_mac(&self) -> MacAddr;
    /// The queue of events. Only the first call returns it.
    fn events(&self) -> Option<Box<dyn EventQueue>>;
    /// The link state of each MAC port.
    fn links(&self) -> Result<[bool; Port::UPLINKS as usize]>;
    /// All vports with their counters, by number.
    fn vports(&self) -> Result<Vec<Vport>>;
    /// Counters of the NIC and its MAC ports.
    fn counters(&self) -> Result<NicCounters>;
    /// Counters of a VF.
    fn vf_counters(&self, vf: u16) -> Result<PortCounters>;
    /// Drops by reason; only reasons that occurred.
    fn drops(&self) -> Result<Vec<(Reason, u64)>>;
    /// Flow records in use.
    fn flow_count(&self) -> Result<u64> {
        Ok(self.vports()?.iter().map(|vport| u64::from(vport.records)).sum())
    }
    /// All of these at once, for whoever looks at the whole NIC: each table is read once, in bounded parts.
    fn reading(&self) -> Result<Reading> {
        let present = |(n, vport): (usize, Vport)| {
            (vport.flags & Vport::PRESENT != 0).then(|| VportReading::new(n as u16, vport))
        };
        let vports: Vec<VportReading> = self.vports()?.into_iter().enumerate().filter_map(present).collect();
        Ok(Reading {
            flows: vports.iter().map(|vport| u64::from(vport.table.records)).sum(),
            vports,
            counters: self.counters()?,
            drops: self.drops()?,
            links: self.links()?,
            workers: Vec::new(),
        })
    }
}

/// A NIC that the slow path offloads flows to.
pub trait OffloadNic: FlowTables + PacketIo + DeviceInfo + Send + Sync + 'static {}

impl<T: FlowTables + PacketIo + DeviceInfo + Send + Sync + 'static> OffloadNic for T {}
