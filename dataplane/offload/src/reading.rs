//! `Reading`: the state and the counters of a whole NIC, read at once.

use std::time::Duration;

use culvert_flow::Port;
use culvert_flow::tables::Vport;
use culvert_packet::Reason;

use crate::NicCounters;

/// The state and the counters of a whole NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The vports in use, by number.
    pub vports: Vec<VportReading>,
    /// Counters of the NIC and its MAC ports.
    pub counters: NicCounters,
    /// Drops by reason; only reasons that occurred.
    pub drops: Vec<(Reason, u64)>,
    /// The link state of each MAC port.
    pub links: [bool; Port::UPLINKS as usize],
    /// Flow records in use.
    pub flows: u64,
    /// The workers of a switch.
    pub workers: Vec<WorkerReading>,
}

/// The state and the counters of a vport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VportReading {
    /// Its number.
    pub number: u16,
    /// Its entry in the NIC's table, with its counters.
    pub table: Vport,
    /// Its drops by reason; only reasons that occurred. Empty where the NIC knows only the sum.
    pub drops: Vec<(Reason, u64)>,
    /// Whether the link of its port is up, if the NIC serves the port itself.
    pub link: Option<bool>,
    /// The worker that serves its port.
    pub worker: Option<u16>,
}

impl VportReading {
    /// Of a vport whose NIC knows no more than its table.
    pub fn new(number: u16, table: Vport) -> Self {
        VportReading { number, table, ..VportReading::default() }
    }
}

/// The load of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerReading {
    /// Vports whose ports it serves.
    pub vports: u64,
    /// For how long there was work since it started.
    pub busy: Duration,
    /// Flow records in use.
    pub flows: u64,
    /// Flow records that it can hold.
    pub flow_capacity: u64,
    /// Free packet buffers.
    pub buffers_free: u64,
    /// Packet buffers.
    pub buffers: u64,
}
