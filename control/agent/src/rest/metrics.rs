//! `/culvert/v1/metrics`: counters in Prometheus' text format.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use culvert_api::view::{CountersView, DropsView, HealthView, PortCounters};

use super::reply::{Reply, blocking};
use crate::Agent;

pub(super) async fn metrics(State(agent): State<Arc<Agent>>) -> Reply {
    let text = blocking(agent, |agent| {
        let counters = agent.datapath().counters()?;
        let drops = agent.datapath().drops()?;
        Ok(render(&agent.health(), &counters, &drops))
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// The text that is being written. Writing to a string cannot fail; its results are dropped for that reason.
#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP culvert_{name} {help}\n# TYPE culvert_{name} {kind}");
    }

    /// Adds a value of a metric, with its labels.
    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "culvert_{name}{labels} {value}");
    }
}

/// Name, help, and which of a port's counters.
type PortColumn = (&'static str, &'static str, fn(&PortCounters) -> u64);

const PORT_COLUMNS: [PortColumn; 5] = [
    ("in_packets", "Packets received", |c| c.in_packets),
    ("in_bytes", "Inner bytes received", |c| c.in_bytes),
    ("out_packets", "Packets sent", |c| c.out_packets),
    ("out_bytes", "Inner bytes sent", |c| c.out_bytes),
    ("drops", "Packets dropped", |c| c.drops),
];

fn render(health: &HealthView, counters: &CountersView, drops: &DropsView) -> String {
    let mut out = Exposition::default();
    let gauges = [
        ("up", "Whether the host has no problems.", health.ok.into()),
        ("firmware_up", "Whether the NIC's firmware answers.", health.firmware_alive.into()),
        ("policy_desired_version", "Version of the policy in the store.", health.desired_version),
        ("policy_applied_version", "Version of the applied policy.", health.applied_version),
    ];
    for (name, help, value) in gauges {
        out.metric(name, "gauge", help);
        out.sample(name, &[], value);
    }
    for (kind, ports) in [("vport", &counters.vports), ("uplink", &counters.uplinks)] {
        for (column, help, value) in PORT_COLUMNS {
            let name = format!("{kind}_{column}_total");
            out.metric(&name, "counter", &format!("{help}, by {kind}."));
            ports.iter().for_each(|(port, counters)| out.sample(&name, &[(kind, port)], value(counters)));
        }
    }
    out.metric("worker_vports", "gauge", "Vports that a worker of the switch serves.");
    for (worker, counters) in &counters.workers {
        out.sample("worker_vports", &[("worker", worker)], counters.vports);
    }
    out.metric("worker_busy_seconds_total", "counter", "Time that a worker spent on packets.");
    for (worker, counters) in &counters.workers {
        let seconds = format!("{}.{:03}", counters.busy_ms / 1000, counters.busy_ms % 1000);
        out.sample("worker_busy_seconds_total", &[("worker", worker)], seconds);
    }
    for (part, values) in [("nic", &counters.nic), ("host", &counters.host)] {
        let name = format!("{part}_total");
        out.metric(&name, "counter", &format!("Counters of the {part}, by name."));
        values.iter().for_each(|(counter, value)| out.sample(&name, &[("name", counter)], value));
    }
    out.metric("drops_total", "counter", "Packets dropped, by reason.");
    for drop in &drops.drops {
        out.sample("drops_total", &[("reason", &drop.reason), ("by", &drop.by)], drop.packets);
    }
    out.text
}
