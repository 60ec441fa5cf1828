//! Comparison of the switch with the core.

use std::collections::{BTreeMap, BTreeSet};

use culvert_abi::soc::Sizes;
use culvert_flow::tables::Vport;
use culvert_flow::{Direction, FlowRecord};
use culvert_offload::FdbEntry;
use culvert_packet::{MacAddr, VportId};
use culvert_switch::BURST;
use zerocopy::IntoBytes as _;

use super::effects::{delta, effects_of};
use super::engine::{SwitchEngine, VPORTS};
use crate::core::Core;
use crate::trace::{Dump, Engine as _, Event, Injected, Input, What};

fn core_drops(core: &mut Core) -> Result<Vec<u64>, String> {
    core.dump(0).map(|dump| dump.drops)
}

/// Runs a trace through the core, event by event, and through a switch with one worker, where consecutive frames of one time
/// become bursts. `lens` are the bursts' lengths, repeated.
///
/// # Errors
/// The first difference.
pub fn compare_bursts(trace: &[Event], lens: &[u8], sizes: &Sizes) -> Result<(), String> {
    let (mut core, mut switch) = (Core::new(sizes), SwitchEngine::new(sizes, 1)?);
    let mut lens = lens.iter().cycle();
    // A switch ends with its slow path, so there is no restart.
    let trace: Vec<&Event> = trace.iter().filter(|e| !matches!(e.what, What::HostRestart)).collect();
    let mut at = 0;
    while let Some(first) = trace.get(at) {
        let len = usize::from(lens.next().copied().unwrap_or(1)) % BURST + 1;
        let frames: Vec<&Input> = trace[at..]
            .iter()
            .map_while(|e| match &e.what {
                What::Frame(input) if e.now == first.now => Some(input),
                _ => None,
            })
            .take(len)
            .collect();
        let events = &trace[at..at + frames.len().max(1)];
        at += events.len();
        let before = (core_drops(&mut core)?, switch.drops());
        let mut outputs = Vec::new();
        for event in events {
            outputs.extend(core.run(event)?);
        }
        switch.each(|f| f.now = first.now);
        if frames.is_empty() {
            switch.execute(first);
        } else {
            switch.burst(&frames)?;
        }
        let mut expected = effects_of(outputs);
        expected.drops = delta(&before.0, &core_drops(&mut core)?);
        let effects = switch.take_effects(&before.1)?;
        if expected != effects {
            return Err(format!("events {events:#?}\ncore: {expected:#?}\nswitch: {effects:#?}"));
        }
        if switch.missing_buffers() > 0 {
            return Err(format!("events {events:#?}\nlost {} buffers", switch.missing_buffers()));
        }
    }
    compare_tables(&core.dump(0)?, &switch)
}

/// Runs a trace through the core and, event by event, through a switch with several workers. Vports are assigned to them in
/// rotation, frames from the wire by the records of the trace. The tables must hold all flows: eviction differs between
/// tables.
///
/// # Errors
/// The first difference.
pub fn compare_workers(trace: &[Event], sizes: &Sizes, workers: usize) -> Result<(), String> {
    let (mut core, mut switch) = (Core::new(sizes), SwitchEngine::new(sizes, workers)?);
    switch.workers.set_fdb(&fdb(trace));
    // The workers' tickets by those of the core.
    let mut tickets = BTreeMap::new();
    // Stop at a restart: it is not executed, and later tickets would belong to other flows.
    for event in trace.iter().take_while(|e| !matches!(e.what, What::HostRestart)) {
        let before = (core_drops(&mut core)?, switch.drops());
        let mut expected = effects_of(core.run(event)?);
        expected.drops = delta(&before.0, &core_drops(&mut core)?);
        switch.each(|f| f.now = event.now);
        match &event.what {
            What::Frame(input) => switch.burst(&[input])?,
            _ => switch.execute(&with_ticket(event, &tickets)),
        }
        let mut effects = switch.take_effects(&before.1)?;
        for (core, workers) in expected.upcalls.iter_mut().zip(&mut effects.upcalls) {
            let (core, workers) = (std::mem::take(&mut core.ticket), std::mem::take(&mut workers.ticket));
            if (core == 0) != (workers == 0) {
                return Err(format!(
                    "event {event:#?}\nticket of the core: {core}, of the workers: {workers}"
                ));
            }
            tickets.insert(core, workers);
        }
        if expected != effects {
            return Err(format!("event {event:#?}\ncore: {expected:#?}\nworkers: {effects:#?}"));
        }
        if switch.missing_buffers() > 0 {
            return Err(format!("event {event:#?}\nlost {} buffers", switch.missing_buffers()));
        }
    }
    compare_tables(&core.dump(0)?, &switch)
}

/// Assigns vports, in rotation, to the destinations of a trace's flows from the wire.
fn fdb(trace: &[Event]) -> Vec<FdbEntry> {
    let records = trace.iter().filter_map(|e| match &e.what {
        What::Insert(records) => Some(records),
        _ => None,
    });
    let inbound = records.flatten().filter(|r| r.key.direction() == Some(Direction::Inbound));
    let ends: BTreeSet<(u32, [u8; 6])> = inbound.map(|r| (r.key.vsid, r.key.dst_mac)).collect();
    let vports = (0..VPORTS).cycle().map(VportId);
    ends.into_iter()
        .zip(vports)
        .map(|((vsid, mac), vport)| FdbEntry { vport, vsid, mac: MacAddr(mac) })
        .collect()
}

/// An event with the workers' ticket. A ticket that the core never issued stays invalid.
fn with_ticket(event: &Event, tickets: &BTreeMap<u32, u32>) -> Event {
    let mut event = event.clone();
    if let What::InjectLookup(Injected { ticket, .. })
    | What::InjectOut(Injected { ticket, .. }, _)
    | What::Dropped { ticket, .. } = &mut event.what
        && *ticket != 0
    {
        *ticket = tickets.get(ticket).copied().unwrap_or(u32::MAX);
    }
    event
}

/// Compares records and counters at the end.
fn compare_tables(core: &Dump, switch: &SwitchEngine) -> Result<(), String> {
    let mut records: Vec<FlowRecord> = Vec::new();
    let mut vports = vec![Vport::default(); core.vports.len()];
    let mut tunnels = vec![(0, 0); core.tunnels.len()];
    for (n, f) in switch.workers.forwarders.iter().enumerate() {
        let dp = f.tables();
        records.extend(dp.table.used_from(0).filter_map(|id| dp.table.record(id)));
        for (sum, vport) in vports.iter_mut().zip(dp.vports.iter()) {
            if n == 0 { *sum = *vport } else { sum.add(vport) }
        }
        for (sum, tunnel) in tunnels.iter_mut().zip(dp.tunnels.iter()) {
            *sum = (sum.0 + tunnel.packets, sum.1 + tunnel.bytes);
        }
    }
    let mut expected = core.records.clone();
    if switch.workers.forwarders.len() > 1 {
        for record in expected.iter_mut().chain(&mut records) {
            // Slots of pending flows and incarnations differ between tables.
            record.hot.pending = record.hot.pending.min(1);
            record.cold.incarnation = 0;
        }
        let key = |record: &FlowRecord| record.key.as_bytes().to_vec();
        expected.sort_by_key(key);
        records.sort_by_key(key);
    }
    if expected != records {
        let lone = |of: &[FlowRecord], other: &[FlowRecord]| {
            of.iter().filter(|record| !other.contains(record)).copied().collect::<Vec<_>>()
        };
        let (core, switch) = (lone(&expected, &records), lone(&records, &expected));
        return Err(format!("tables differ\nonly in the core: {core:#?}\nonly in the switch: {switch:#?}"));
    }
    if core.vports != vports {
        return Err("counters of vports differ".to_owned());
    }
    if core.tunnels == tunnels { Ok(()) } else { Err("counters of tunnels differ".to_owned()) }
}
