//! The three traits of a NIC.

use culvert_flow::tables::Vport;
use culvert_flow::{FlowKey, FlowRecord, Port};
use culvert_packet::{MacAddr, Reason, VportId};

use crate::{EventQueue, FlowCommand, NicCounters, PortCounters, Result, TableWrite, UpcallQueue, VmqQueue};

/// Which records a scan returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// All of them.
    All,
    /// Those that are not pending and that no packet has used for so many milliseconds.
    Idle(u32),
}

impl Scan {
    /// Whether it returns a record, `now` being the NIC's time.
    pub fn includes(self, record: &FlowRecord, now: u32) -> bool {
        match self {
            Scan::All => true,
            Scan::Idle(ms) => record.hot.pending == 0 && now.wrapping_sub(record.hot.last_used) >= ms,
        }
    }
}

/// A NIC's tables and commands.
///
/// # Errors
/// All calls fail when the NIC does not run, refuses, or does not answer in time.
#[expect(clippy::missing_errors_doc, reason = "the trait's documentation says it once for all its calls")]
pub trait FlowTables {
    /// Queues commands, in order. Does not wait for their completion.
    fn execute(&self, commands: Vec<FlowCommand>) -> Result<()>;
    /// Writes a table and waits for completion.
    fn write(&self, write: TableWrite<'_>) -> Result<()>;
    /// Inserts records and waits for completion.
    fn insert(&self, records: &[FlowRecord]) -> Result<()>;
    /// The records of these keys, as far as they exist.
    fn find(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>>;
    /// Records of the whole table, at most `limit`.
    fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<FlowRecord>>;
    /// Waits until everything given before is done.
    fn fence(&self) -> Result<()>;
    /// Lets packets flow.
    fn start(&self) -> Result<()>;
}

/// A NIC's packets.
#[expect(clippy::missing_errors_doc, reason = "each call says when it fails")]
pub trait PacketIo {
    /// The queue of upcalls. Only the first call returns it.
    fn upcalls(&self) -> Option<Box<dyn UpcallQueue>>;
    /// Opens a VMQ. Fails if there is none with this number.
    fn vmq(&self, n: u16) -> Result<Box<dyn VmqQueue>>;
    /// Enqueues a frame, in two parts, that a vport's VM sent. `false`: the queue is full, try again. The NIC sees it
    /// after [`doorbell`](Self::doorbell). Fails if the frame is too long or the device is lost.
    fn enqueue(&self, vport: VportId, parts: [&[u8]; 2]) -> Result<bool> {
        let _ = (vport, parts);
        Ok(false)
    }
    /// Has the NIC count frames from or to a vport's VM that the host dropped. `false`: the queue is full, try again. Fails
    /// if the device is lost.
    fn enqueue_drops(&self, vport: VportId, reason: Reason, count: u32) -> Result<bool> {
        let _ = (vport, reason, count);
        Ok(false)
    }
    /// Tells the NIC about enqueued frames. Fails if the device is lost.
    fn doorbell(&self) -> Result<()> {
        Ok(())
    }
}

/// What a NIC can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// MAC ports.
    pub uplinks: u8,
    /// Flow records.
    pub flow_records: u32,
    /// Flow records of a vport for which the policy names no quota.
    pub flow_records_per_vport: u32,
    /// Whether the NIC can lose its tables while this process runs, and needs them written again.
    pub is_volatile: bool,
}

/// A NIC's properties, state and counters.
///
/// # Errors
/// All calls fail when the NIC does not answer.
#[expect(clippy::missing_errors_doc, reason = "the trait's documentation says it once for all its calls")]
pub trait DeviceInfo {
    /// What the NIC can hold.
    fn capabilities(&self) -> Capabilities;
    /// Whether a previous daemon wrote its tables and the NIC kept them.
    fn is_adopted(&self) -> bool;
    /// Whether it takes commands.
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
}

/// A NIC that the slow path offloads flows to.
pub trait OffloadNic: FlowTables + PacketIo + DeviceInfo + Send + Sync + 'static {}

impl<T: FlowTables + PacketIo + DeviceInfo + Send + Sync + 'static> OffloadNic for T {}
