//! `/culvert/v1/metrics`: counters in Prometheus' text form.

use std::fmt::Write;
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

/// Name, help, and which of a port's counters.
type Column = (&'static str, &'static str, fn(&PortCounters) -> u64);

/// Writing to a string cannot fail; its results are dropped for that reason.
fn render(health: &HealthView, counters: &CountersView, drops: &DropsView) -> String {
    let mut out = String::new();
    let mut plain = |name: &str, help: &str, kind: &str, value: u64| {
        let _ = writeln!(
            out,
            "# HELP culvert_{name} {help}\n# TYPE culvert_{name} {kind}\nculvert_{name} {value}"
        );
    };
    plain("up", "Whether the host has no problems.", "gauge", health.ok.into());
    plain("firmware_up", "Whether the NIC's firmware answers.", "gauge", health.firmware_alive.into());
    plain("policy_desired_version", "Version of the policy in the store.", "gauge", health.desired_version);
    plain("policy_applied_version", "Version of the applied policy.", "gauge", health.applied_version);
    let columns: [Column; 5] = [
        ("in_packets", "Packets into the NIC", |c| c.in_packets),
        ("in_bytes", "Inner bytes into the NIC", |c| c.in_bytes),
        ("out_packets", "Packets out of the NIC", |c| c.out_packets),
        ("out_bytes", "Inner bytes out of the NIC", |c| c.out_bytes),
        ("drops", "Packets dropped", |c| c.drops),
    ];
    for (kind, ports) in [("vport", &counters.vports), ("uplink", &counters.uplinks)] {
        for (name, help, value) in columns {
            let _ = writeln!(out, "# HELP culvert_{kind}_{name}_total {help}, by {kind}.");
            let _ = writeln!(out, "# TYPE culvert_{kind}_{name}_total counter");
            for (port, counters) in ports {
                let _ = writeln!(out, "culvert_{kind}_{name}_total{{{kind}=\"{port}\"}} {}", value(counters));
            }
        }
    }
    let _ = writeln!(out, "# HELP culvert_worker_vports Vports that a worker of the switch serves.");
    let _ = writeln!(out, "# TYPE culvert_worker_vports gauge");
    for (worker, counters) in &counters.workers {
        let _ = writeln!(out, "culvert_worker_vports{{worker=\"{worker}\"}} {}", counters.vports);
    }
    let _ = writeln!(out, "# HELP culvert_worker_busy_seconds_total Time that a worker spent on packets.");
    let _ = writeln!(out, "# TYPE culvert_worker_busy_seconds_total counter");
    for (worker, counters) in &counters.workers {
        let (s, ms) = (counters.busy_ms / 1000, counters.busy_ms % 1000);
        let _ = writeln!(out, "culvert_worker_busy_seconds_total{{worker=\"{worker}\"}} {s}.{ms:03}");
    }
    for (kind, values) in [("nic", &counters.nic), ("host", &counters.host)] {
        let _ = writeln!(out, "# HELP culvert_{kind}_total Counters of the {kind}, by name.");
        let _ = writeln!(out, "# TYPE culvert_{kind}_total counter");
        for (name, value) in values {
            let _ = writeln!(out, "culvert_{kind}_total{{name=\"{name}\"}} {value}");
        }
    }
    let _ = writeln!(out, "# HELP culvert_drops_total Packets dropped, by reason.");
    let _ = writeln!(out, "# TYPE culvert_drops_total counter");
    for drop in &drops.drops {
        let (reason, by) = (&drop.reason, &drop.by);
        let _ = writeln!(out, "culvert_drops_total{{reason=\"{reason}\",by=\"{by}\"}} {}", drop.packets);
    }
    out
}
