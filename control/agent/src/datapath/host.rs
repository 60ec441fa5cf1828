//! [`HostDatapath`]: the slow path above a Culvert NIC or the switch, as the daemon sees it.

use std::sync::{Arc, Mutex, PoisonError};

use culvert_api::view::{
    CountersView, DropEntry, DropsView, FlowQuery, FlowView, NicInfo, PortCounters, TraceHop, TraceReply,
    TraceRequest, Verdict, VportView,
};
use culvert_model::HostConfig;
use culvert_packet::VportId;
use culvert_policy::Decision;
use culvert_policy::snapshot::{Snapshot, Target};
use culvert_slowpath::{ForwardOutcome, Handle, PacketTrace, SlowPath, Status};

use super::backend::{Backend, STATUS_LIMIT};
use super::flow_view::{self, Names};
use super::interface::{Datapath, DatapathError};
use super::last_known::LastKnown;
use super::trace_frame;

/// Flow records in a reply whose query names no limit.
const DEFAULT_FLOW_LIMIT: usize = 1000;

/// The slow path and its backend.
pub struct HostDatapath {
    backend: Backend,
    slow_path: SlowPath,
    /// The configuration applied last: it has the names of vports.
    config: Mutex<Option<Arc<HostConfig>>>,
    /// The views as last read, for times in which the NIC does not answer.
    vports: LastKnown<Vec<VportView>>,
    counters: LastKnown<CountersView>,
    drops: LastKnown<DropsView>,
}

impl HostDatapath {
    pub(super) fn new(backend: Backend, slow_path: SlowPath) -> Self {
        let (vports, counters, drops) = Default::default();
        Self { backend, slow_path, config: Mutex::new(None), vports, counters, drops }
    }

    fn handle(&self) -> Handle {
        self.slow_path.handle()
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.as_ref().map(|p| p.snapshot.clone())
    }

    fn vport(&self, n: u16, vport: &culvert_flow::tables::Vport, snapshot: Option<&Snapshot>) -> VportView {
        let known = snapshot.and_then(|s| s.vports.get(&VportId(n)));
        let mut view = VportView {
            id: n,
            vsid: vport.vsid,
            generation: vport.generation,
            counters: PortCounters {
                in_packets: vport.rx_packets,
                in_bytes: vport.rx_bytes,
                out_packets: vport.tx_packets,
                out_bytes: vport.tx_bytes,
                drops: vport.drops,
            },
            ..VportView::default()
        };
        let Some(known) = known else { return view };
        view.attachment = self.backend.attachment(VportId(n), known.target);
        view.mtu = known.mtu;
        (view.served_by, view.state) = self.backend.state(VportId(n), known.target);
        match known.target {
            Target::Vf(vf) => view.vf = Some(vf),
            Target::Vmq(vmq) => view.vmq = Some(vmq),
            Target::Software => view.worker = self.backend.worker(VportId(n)),
        }
        let pa = snapshot.and_then(|s| s.local_pas.get(usize::from(known.local_pa)));
        view.uplink = pa.map_or(0, |pa| pa.uplink);
        view
    }

    fn read_vports(&self) -> Result<Vec<VportView>, DatapathError> {
        let snapshot = self.snapshot();
        let all = self.handle().vports()?;
        Ok(all.iter().map(|(n, v)| self.vport(*n, v, snapshot.as_deref())).collect())
    }

    fn read_counters(&self) -> Result<CountersView, DatapathError> {
        let snapshot = self.snapshot();
        let handle = self.handle();
        let counters = handle.counters()?;
        let mut view = CountersView::default();
        for (n, vport) in handle.vports()? {
            let shown = self.vport(n, &vport, snapshot.as_deref());
            let name =
                snapshot.as_deref().and_then(|s| s.vports.get(&VportId(n))).map_or("", |v| v.name.as_str());
            view.vports.insert(format!("{n} {name}").trim_end().to_owned(), shown.counters);
        }
        for (n, c) in counters.uplinks.iter().enumerate().take(self.backend.uplinks().into()) {
            let shown = PortCounters {
                in_packets: c.in_packets,
                in_bytes: c.in_bytes,
                out_packets: c.out_packets,
                out_bytes: c.out_bytes,
                drops: c.drops,
            };
            view.uplinks.insert(format!("uplink{n}"), shown);
        }
        view.workers = self.backend.workers()?;
        view.nic = [("finished", counters.finished), ("punted", counters.punted)]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        view.nic.extend(self.backend.frames_by_message()?);
        let status = handle.status_within(STATUS_LIMIT)?;
        view.host = host_counters(&status).map(|(name, value)| (name.to_owned(), value)).into();
        Ok(view)
    }

    fn read_drops(&self) -> Result<DropsView, DatapathError> {
        let mut all = self.handle().drops()?;
        all.retain(|(_, packets)| *packets > 0);
        all.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
        let total = all.iter().map(|(_, packets)| packets).sum();
        let drops = all.into_iter().map(|(reason, packets)| DropEntry {
            reason: reason.as_str().to_owned(),
            packets,
            by: self.backend.name().to_owned(),
            meaning: reason.describe().to_owned(),
        });
        Ok(DropsView { drops: drops.collect(), total, stale_s: None })
    }
}

impl Datapath for HostDatapath {
    fn apply(&self, config: Arc<HostConfig>) -> Result<(), DatapathError> {
        self.backend.prepare(&config)?;
        self.handle().apply(config.snapshot.clone())?;
        self.backend.commit(&config)?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
        self.refresh();
        Ok(())
    }

    fn nic(&self) -> Result<NicInfo, DatapathError> {
        self.backend.info(&self.handle())
    }

    fn vports(&self) -> Result<Vec<VportView>, DatapathError> {
        self.vports.or_last(self.read_vports(), |vports, age| {
            vports.iter_mut().for_each(|vport| vport.stale_s = Some(age));
        })
    }

    fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowView>, DatapathError> {
        let snapshot = self.snapshot();
        let names = Names::new(snapshot.as_deref());
        let limit = query.limit.unwrap_or(DEFAULT_FLOW_LIMIT);
        let wanted = |record: &culvert_flow::FlowRecord| {
            query.vport.is_none_or(|v| names.vport(record) == Some(v))
                && query.vsid.is_none_or(|v| names.vsid(record) == v)
        };
        let records = self.handle().flows(limit, wanted)?;
        Ok(records
            .iter()
            .enumerate()
            .map(|(n, r)| names.view(n as u64, r, self.backend.not_offloaded()))
            .collect())
    }

    fn counters(&self) -> Result<CountersView, DatapathError> {
        self.counters.or_last(self.read_counters(), |counters, age| counters.stale_s = Some(age))
    }

    fn drops(&self) -> Result<DropsView, DatapathError> {
        self.drops.or_last(self.read_drops(), |drops, age| drops.stale_s = Some(age))
    }

    fn planned_vfs(&self) -> u16 {
        self.backend.planned_vfs()
    }

    fn refresh(&self) {
        // The switch answers as long as this process lives.
        if matches!(self.backend, Backend::Nic { .. }) && self.backend.problem().is_none() {
            // A view that cannot be read now stays as it was.
            let _ = (self.vports(), self.counters(), self.drops());
        }
    }

    fn problems(&self) -> Vec<String> {
        self.backend.problem().into_iter().chain(self.handle().problems()).collect()
    }

    fn trace(&self, request: &TraceRequest) -> Result<TraceReply, DatapathError> {
        let snapshot = self
            .snapshot()
            .ok_or_else(|| DatapathError::Unavailable { detail: "no policy is applied yet".to_owned() })?;
        let (port, frame) = trace_frame::resolve(request, &snapshot)?;
        let traced = self.handle().trace(port, frame)?;
        Ok(reply(&traced, &Names::new(Some(&snapshot))))
    }
}

fn host_counters(status: &Status) -> [(&'static str, u64); 9] {
    let counters = &status.counters;
    [
        ("connections", status.connections as u64),
        ("upcalls", counters.upcalls),
        ("tcp_copies", counters.tcp_copies),
        ("underlay_frames", counters.underlay_frames),
        ("waited_for_next_hop", counters.waited_for_next_hop),
        ("forwarded_in_software", counters.forwarded_in_software),
        ("answered", counters.replies),
        ("records_offloaded", counters.records_offloaded),
        ("lost_in_restarts", status.lost_in_restarts),
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
