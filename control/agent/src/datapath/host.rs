//! [`HostDatapath`]: the slow path above a Culvert NIC or the switch, as the daemon sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use culvert_api::view::{
    CountersView, DropEntry, DropsView, FlowQuery, FlowView, FlushReply, NicInfo, PortCounters, TalkerView,
    TraceHop, TraceReply, TraceRequest, Usage, Verdict, VportView, WorkerCounters,
};
use culvert_model::HostConfig;
use culvert_offload::{Reading, VportReading, WorkerReading};
use culvert_packet::{Reason, VportId};
use culvert_policy::Decision;
use culvert_policy::snapshot::{Snapshot, Target};
use culvert_slowpath::{ForwardOutcome, Handle, PacketTrace, Published, RuleHit, SlowPath};

use super::backend::{Backend, PortView};
use super::conditions::Conditions;
use super::flow_reader::FlowReader;
use super::flow_view::{self, Names};
use super::host_watch::HostWatch;
use super::interface::{Datapath, DatapathError, Measurement};
use super::last_known::LastKnown;
use super::{trace_frame, trace_length};

/// The slow path and its backend.
pub struct HostDatapath {
    backend: Backend,
    slow_path: SlowPath,
    /// The configuration applied last: it has the names of vports.
    config: Mutex<Option<Arc<HostConfig>>>,
    watch: HostWatch,
    /// The views as last read, for times in which the NIC does not answer.
    vports: LastKnown<Vec<VportView>>,
    counters: LastKnown<CountersView>,
    drops: LastKnown<DropsView>,
}

impl HostDatapath {
    pub(super) fn new(backend: Backend, slow_path: SlowPath) -> Self {
        let (vports, counters, drops) = Default::default();
        let watch = HostWatch::default();
        Self { backend, slow_path, config: Mutex::new(None), watch, vports, counters, drops }
    }

    fn handle(&self) -> Handle {
        self.slow_path.handle()
    }

    /// Reads flow records with the names of the policy.
    fn flow_reader(&self) -> FlowReader {
        FlowReader {
            handle: self.handle(),
            snapshot: self.snapshot(),
            not_offloaded: self.backend.not_offloaded(),
        }
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.as_ref().map(|p| p.snapshot.clone())
    }

    fn read(&self) -> Result<Reading, DatapathError> {
        Ok(self.handle().reading()?)
    }

    fn vports_of(&self, reading: &Reading) -> Vec<VportView> {
        let snapshot = self.snapshot();
        let known = |number| snapshot.as_deref().and_then(|s| s.vports.get(&VportId(number)));
        let vports: Vec<(VportReading, Target)> = reading
            .vports
            .iter()
            .map(|vport| (vport.clone(), known(vport.number).map_or(Target::Software, |known| known.target)))
            .collect();
        let ports = self.backend.ports(&self.handle(), &vports);
        let view = |((vport, target), port): (&(VportReading, Target), PortView)| {
            let mut view = VportView {
                id: vport.number,
                vsid: vport.table.vsid,
                generation: vport.table.generation,
                counters: vport_counters(&vport.table),
                drop_reasons: named(&port.drops),
                ..VportView::default()
            };
            let Some(known) = known(vport.number) else { return view };
            view.name.clone_from(&known.name);
            view.mtu = known.mtu;
            (view.served_by, view.state, view.attachment) = (port.served_by, port.state, port.attachment);
            match target {
                Target::Vf(vf) => view.vf = Some(*vf),
                Target::Vmq(vmq) => view.vmq = Some(*vmq),
                Target::Software => view.worker = vport.worker,
            }
            let pa = snapshot.as_deref().and_then(|s| s.local_pas.get(usize::from(known.local_pa)));
            view.uplink = pa.map_or(0, |pa| pa.uplink);
            view
        };
        let conditions = self.conditions();
        let mut views: Vec<VportView> = vports.iter().zip(ports).map(view).collect();
        for view in &mut views {
            if let Some(seen) = conditions.vports.get(&view.id) {
                (view.state, view.state_reason) = (seen.state, seen.reason.clone());
            }
        }
        views
    }

    fn try_apply(&self, config: &Arc<HostConfig>) -> Result<(), DatapathError> {
        self.backend.prepare(config)?;
        self.handle().apply(config.snapshot.clone())?;
        self.backend.commit(config)?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Some(config.clone());
        Ok(())
    }

    fn counters_of(&self, reading: &Reading) -> Result<CountersView, DatapathError> {
        let (snapshot, handle) = (self.snapshot(), self.handle());
        let published = handle.published();
        let mut view = CountersView {
            flows: Usage { used: reading.flows, capacity: handle.flow_capacity() },
            connections: Usage {
                used: published.connections as u64,
                capacity: published.max_connections as u64,
            },
            ..CountersView::default()
        };
        for vport in &reading.vports {
            let known = snapshot.as_deref().and_then(|s| s.vports.get(&VportId(vport.number)));
            let name = format!("{} {}", vport.number, known.map_or("", |known| known.name.as_str()));
            view.vports.insert(name.trim_end().to_owned(), vport_counters(&vport.table));
        }
        let uplinks = reading.counters.uplinks.iter().take(self.backend.uplinks().into());
        for (n, c) in uplinks.enumerate() {
            let shown = PortCounters {
                in_packets: c.in_packets,
                in_bytes: c.in_bytes,
                out_packets: c.out_packets,
                out_bytes: c.out_bytes,
                drops: c.drops,
            };
            view.uplinks.insert(format!("uplink{n}"), shown);
        }
        view.workers = (0..).zip(reading.workers.iter().map(worker_counters)).collect();
        view.nic = [("finished", reading.counters.finished), ("punted", reading.counters.punted)]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        view.nic.extend(self.backend.frames_by_message()?);
        view.host = host_counters(&published).map(|(name, value)| (name.to_owned(), value)).into();
        Ok(view)
    }

    fn drops_of(&self, reading: &Reading) -> DropsView {
        let mut all = reading.drops.clone();
        all.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
        let total = all.iter().map(|(_, packets)| packets).sum();
        let drops = all.into_iter().map(|(reason, packets)| DropEntry {
            reason: reason.as_str().to_owned(),
            packets,
            by: self.backend.name().to_owned(),
            meaning: reason.describe().to_owned(),
            ports: if reason == Reason::TooLong { self.backend.length_drops() } else { Vec::new() },
        });
        DropsView { drops: drops.collect(), total, stale_s: None }
    }

    /// The views of a reading, or those of the last one if the datapath did not answer.
    fn show_vports(&self, reading: Result<&Reading, DatapathError>) -> Result<Vec<VportView>, DatapathError> {
        self.vports.or_last(reading.map(|reading| self.vports_of(reading)), |vports, age| {
            vports.iter_mut().for_each(|vport| vport.stale_s = Some(age));
        })
    }

    fn show_counters(&self, reading: Result<&Reading, DatapathError>) -> Result<CountersView, DatapathError> {
        let view = reading.and_then(|reading| self.counters_of(reading));
        self.counters.or_last(view, |counters, age| counters.stale_s = Some(age))
    }

    fn show_drops(&self, reading: Result<&Reading, DatapathError>) -> Result<DropsView, DatapathError> {
        self.drops.or_last(reading.map(|reading| self.drops_of(reading)), |drops, age| {
            drops.stale_s = Some(age);
        })
    }
}

fn vport_counters(table: &culvert_flow::tables::Vport) -> PortCounters {
    PortCounters {
        in_packets: table.rx_packets,
        in_bytes: table.rx_bytes,
        out_packets: table.tx_packets,
        out_bytes: table.tx_bytes,
        drops: table.drops,
    }
}

fn worker_counters(worker: &WorkerReading) -> WorkerCounters {
    WorkerCounters {
        vports: worker.vports,
        busy_ms: worker.busy.as_millis() as u64,
        flows: Usage { used: worker.flows, capacity: worker.flow_capacity },
        buffers: Usage { used: worker.buffers.saturating_sub(worker.buffers_free), capacity: worker.buffers },
    }
}

/// Drops by the words of their reasons.
fn named(drops: &[(Reason, u64)]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (reason, count) in drops {
        *all.entry(reason.as_str().to_owned()).or_default() += count;
    }
    all
}

impl Datapath for HostDatapath {
    fn apply(&self, config: Arc<HostConfig>) -> Result<(), DatapathError> {
        let result = self.try_apply(&config);
        let problem = result.as_ref().err().map(ToString::to_string);
        self.watch.set_wanted(config, problem);
        self.watch();
        if result.is_ok() {
            self.refresh();
        }
        result
    }

    fn nic(&self) -> Result<NicInfo, DatapathError> {
        let mut info = self.backend.info(&self.handle())?;
        self.watch.look_if_due(&self.backend, &self.handle());
        let conditions = self.conditions();
        for view in &mut info.uplinks {
            if let Some(seen) = conditions.uplinks.get(&view.uplink) {
                (view.state, view.state_reason) = (seen.state, seen.reason.clone());
                (view.mtu, view.needed_mtu) = (seen.mtu, seen.needed_mtu);
                view.interface.clone_from(&seen.interface);
            }
        }
        Ok(info)
    }

    fn vports(&self) -> Result<Vec<VportView>, DatapathError> {
        self.watch.look_if_due(&self.backend, &self.handle());
        self.show_vports(self.read().as_ref().map_err(Clone::clone))
    }

    fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowView>, DatapathError> {
        self.flow_reader().list(query)
    }

    fn talkers(&self, query: &FlowQuery) -> Result<Vec<TalkerView>, DatapathError> {
        self.flow_reader().talkers(query)
    }

    fn flush_flows(&self, query: &FlowQuery) -> Result<FlushReply, DatapathError> {
        self.flow_reader().flush(query)
    }

    fn rule_hits(&self) -> Vec<RuleHit> {
        self.handle().rule_hits()
    }

    fn counters(&self) -> Result<CountersView, DatapathError> {
        self.show_counters(self.read().as_ref().map_err(Clone::clone))
    }

    fn drops(&self) -> Result<DropsView, DatapathError> {
        self.show_drops(self.read().as_ref().map_err(Clone::clone))
    }

    fn measure(&self) -> Result<Measurement, DatapathError> {
        let read = self.read();
        let reading = || read.as_ref().map_err(Clone::clone);
        // A NIC that does not answer has no link, as far as this host knows.
        let links = read.as_ref().map(|reading| reading.links).unwrap_or_default();
        Ok(Measurement {
            links: links[..links.len().min(self.backend.uplinks().into())].to_vec(),
            vports: self.show_vports(reading())?,
            counters: self.show_counters(reading())?,
            drops: self.show_drops(reading())?,
        })
    }

    fn planned_vfs(&self) -> u16 {
        self.backend.planned_vfs()
    }

    fn refresh(&self) {
        // The switch answers as long as this process lives.
        if matches!(self.backend, Backend::Nic { .. }) && self.backend.problem().is_none() {
            // A view that cannot be read now stays as it was.
            let _ = self.measure();
        }
    }

    fn problems(&self) -> Vec<String> {
        self.backend.problem().into_iter().chain(self.handle().problems()).collect()
    }

    fn watch(&self) {
        self.watch.look(&self.backend, &self.handle());
    }

    fn conditions(&self) -> Arc<Conditions> {
        self.watch.conditions()
    }

    fn firmware(&self) -> Option<bool> {
        self.backend.firmware()
    }

    fn trace(&self, request: &TraceRequest) -> Result<TraceReply, DatapathError> {
        let snapshot = self
            .snapshot()
            .ok_or_else(|| DatapathError::Unavailable { detail: "no policy is applied yet".to_owned() })?;
        let (port, frame) = trace_frame::resolve(request, &snapshot)?;
        let traced = self.handle().trace(port, frame)?;
        let mut answer = reply(&traced, &Names::new(Some(&snapshot)));
        trace_length::explain(&traced, &snapshot, &self.conditions(), &mut answer);
        Ok(answer)
    }
}

fn host_counters(published: &Published) -> [(&'static str, u64); 8] {
    let counters = &published.counters;
    [
        ("upcalls", counters.upcalls),
        ("tcp_copies", counters.tcp_copies),
        ("underlay_frames", counters.underlay_frames),
        ("waited_for_next_hop", counters.waited_for_next_hop),
        ("forwarded_in_software", counters.forwarded_in_software),
        ("answered", counters.replies),
        ("records_offloaded", counters.records_offloaded),
        ("lost_in_restarts", published.lost_in_restarts),
    ]
}

fn reply(traced: &PacketTrace, names: &Names<'_>) -> TraceReply {
    let layers = traced.layers.iter().map(|step| TraceHop {
        layer: step.layer.as_str().to_owned(),
        vport: step.vport.map(|v| v.0),
        rule: step.rule.clone(),
        action: step.action.clone(),
    });
    let mut reply = TraceReply { layers: layers.collect(), ..TraceReply::default() };
    if let ForwardOutcome::Send(frames) = &traced.outcome {
        reply.outputs = frames.iter().map(|(port, _)| flow_view::port_name(*port)).collect();
        reply.frame = frames.first().map(|(_, f)| trace_frame::to_hex(f)).unwrap_or_default();
    }
    match &traced.decision {
        Ok(Decision::Forward(forward)) => {
            reply.verdict = if reply.outputs.len() > 1 { Verdict::Replicate } else { Verdict::Forward };
            reply.actions = names.actions(&forward.record);
            if let Err(reason) = forward.offload {
                reply.reason = format!("not offloaded: {}", reason.as_str());
            }
            if let ForwardOutcome::Drop(reason) = &traced.outcome {
                // The policy forwards it, but something is missing, such as the next hop's MAC address.
                reply.reason = format!("cannot be sent now: {}", reason.as_str());
            }
        }
        Ok(Decision::Reply(_)) => reply.verdict = Verdict::Reply,
        Ok(Decision::Drop(reason)) | Err(reason) => {
            reply.verdict = Verdict::Drop;
            reply.reason = reason.as_str().to_owned();
        }
    }
    reply
}
