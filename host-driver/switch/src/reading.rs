//! Reads the whole switch for views: a worker answers in bounded parts, between two bursts each, and copies only what its
//! threads have published already. It asks neither the kernel nor another process.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use culvert_flow::tables::Vport;
use culvert_flow::{FlowRecord, Port, RecordId};
use culvert_offload::{NicCounters, Reading, Result, Scan, VportReading, WorkerReading, idle_ms};
use culvert_packet::{Reason, VportId};

use crate::forwarder::Forwarder;
use crate::port_state::{LengthDrops, PortState};
use crate::switch::Switch;

/// Vports that a worker reads between two bursts: about ten microseconds.
const VPORTS: u16 = 256;
/// Places of the flow table that a worker looks at between two bursts, and records that it copies.
const PLACES: u32 = 8192;
const RECORDS: usize = 256;

/// What a worker knows of itself.
struct WorkerPart {
    counters: NicCounters,
    drops: [u64; 256],
    links: [bool; Port::UPLINKS as usize],
    load: WorkerReading,
}

/// Records from a part of a flow table, each with its idle milliseconds, and where the next part begins.
struct FlowPart {
    records: Vec<(FlowRecord, u32)>,
    next: Option<u32>,
}

fn some_drops(drops: &[u64; 256]) -> Vec<(Reason, u64)> {
    let all = Reason::ALL.iter().map(|reason| (*reason, drops[*reason as usize]));
    all.filter(|(_, count)| *count > 0).collect()
}

impl Forwarder {
    /// Everything but the vports and flows.
    fn read_worker(&mut self) -> WorkerPart {
        self.out.count_rx_drops();
        let uplinks = [0, 1].map(|n| self.out.ports.get(Port::Uplink(n)));
        let vports = self.out.ports.local().iter().filter(|port| matches!(port.at(), Port::Vport(_))).count();
        let counters = &self.out.dp.counters;
        WorkerPart {
            counters: NicCounters {
                finished: counters.finished,
                punted: counters.punted,
                uplinks: uplinks.map(|port| port.map(|port| port.counters).unwrap_or_default()),
            },
            drops: counters.drops,
            links: uplinks.map(|port| port.is_some_and(|port| port.link())),
            load: WorkerReading {
                vports: vports as u64,
                busy: self.busy,
                flows: self.out.dp.table.len().into(),
                flow_capacity: self.out.dp.table.capacity().into(),
                buffers_free: self.out.pool.free() as u64,
                buffers: self.out.pool.count().into(),
            },
        }
    }

    /// The vports in use with these numbers.
    fn read_vports(&self, numbers: std::ops::Range<u16>, worker: usize) -> Vec<VportReading> {
        let present = |number: u16| {
            let table = *self.out.dp.vports.get(usize::from(number))?;
            (table.flags & Vport::PRESENT != 0).then(|| {
                let drops = self.out.dp.vport_drops.get(usize::from(number)).filter(|_| table.drops > 0);
                // As the port's monitor has published it.
                let link = self.out.ports.get(Port::Vport(VportId(number))).map(|port| port.link());
                let worker = link.map(|_| worker as u16);
                VportReading { number, table, drops: drops.map(some_drops).unwrap_or_default(), link, worker }
            })
        };
        numbers.filter_map(present).collect()
    }

    /// The records of a part of the flow table.
    fn read_flows(&self, from: u32, scan: Scan) -> FlowPart {
        let table = &self.out.dp.table;
        let end = from.saturating_add(PLACES).min(table.capacity());
        let mut records = Vec::new();
        let mut at = from;
        while at < end && records.len() < RECORDS {
            if let Some(record) = table.record(RecordId(at)).filter(|record| scan.includes(record, self.now))
            {
                records.push((record, idle_ms(self.now, &record)));
            }
            at += 1;
        }
        FlowPart { records, next: (at < table.capacity()).then_some(at) }
    }
}

/// Adds what another worker knows of the same vports.
fn add_vports(sum: &mut [VportReading], more: Vec<VportReading>) {
    for vport in more {
        // In order of their numbers. One that is made just now may not be known yet.
        let Ok(n) = sum.binary_search_by_key(&vport.number, |known| known.number) else { continue };
        let known = &mut sum[n];
        known.table.add(&vport.table);
        known.link = known.link.or(vport.link);
        known.worker = known.worker.or(vport.worker);
        for (reason, count) in vport.drops {
            match known.drops.iter_mut().find(|(r, _)| *r == reason) {
                Some((_, sum)) => *sum += count,
                None => known.drops.push((reason, count)),
            }
        }
    }
}

impl Switch {
    /// The attached ports with their states, as the workers saw them last, and the frames that were too long for them.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn port_states(&self) -> Result<BTreeMap<Port, (PortState, LengthDrops)>> {
        let all = self.ask_all(|f, _| {
            let ports = f.out.ports.local().iter();
            ports.map(|port| (port.at(), port.state(), port.length_drops())).collect::<Vec<_>>()
        })?;
        let mut ports: BTreeMap<Port, (PortState, LengthDrops)> = BTreeMap::new();
        for (at, state, drops) in all.into_iter().flatten() {
            let merged = match ports.remove(&at) {
                Some((known, sum)) => (known.worse(state), sum.with(drops)),
                None => (state, drops),
            };
            ports.insert(at, merged);
        }
        Ok(ports)
    }

    /// Reads the whole switch.
    pub(super) fn read(&self) -> Result<Reading> {
        let mut reading = Reading::default();
        let mut drops = [0; 256];
        for part in self.ask_all(|f, _| f.read_worker())? {
            reading.counters += part.counters;
            drops.iter_mut().zip(part.drops).for_each(|(sum, count)| *sum += count);
            reading.links.iter_mut().zip(part.links).for_each(|(up, link)| *up |= link);
            reading.flows += part.load.flows;
            reading.workers.push(part.load);
        }
        reading.drops = some_drops(&drops);
        for from in (0..self.vports_end()).step_by(VPORTS.into()) {
            let parts = self.ask_all(move |f, worker| f.read_vports(from..from + VPORTS, worker))?;
            let mut parts = parts.into_iter();
            let mut vports = parts.next().unwrap_or_default();
            parts.for_each(|part| add_vports(&mut vports, part));
            reading.vports.extend(vports);
        }
        Ok(reading)
    }

    /// Shows the flow records of all workers, in parts.
    pub(super) fn visit_flows(
        &self,
        scan: Scan,
        each: &mut dyn FnMut(&FlowRecord, u32) -> ControlFlow<()>,
    ) -> Result<()> {
        for worker in 0..self.workers() {
            let mut from = Some(0);
            while let Some(at) = from {
                let part = self.ask(worker, move |f| f.read_flows(at, scan))?;
                if part.records.iter().any(|(record, idle)| each(record, *idle).is_break()) {
                    return Ok(());
                }
                from = part.next;
            }
        }
        Ok(())
    }
}
