//! `/culvert/v1/metrics`: the datapath, read once, in Prometheus' text format.

mod exposition;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use culvert_api::view::{
    CountersView, HealthView, PortCounters, Usage, VportState, VportView, WorkerCounters,
};
use culvert_slowpath::RuleHit;

use self::exposition::Exposition;
use super::reply::{Reply, blocking};
use super::views::{direction_word, name_vports};
use crate::{Agent, Measurement};

pub(super) async fn metrics(State(agent): State<Arc<Agent>>) -> Reply {
    let text = blocking(agent, |agent| {
        // A NIC that was never seen has no counters; that it was not is a metric, too.
        let mut measured = agent.datapath().measure().ok();
        if let Some(measured) = &mut measured {
            name_vports(&agent.current(), &mut measured.vports);
        }
        Ok(render(&agent.health(), measured.as_ref(), &agent.datapath().rule_hits()))
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Name, help, and which of a port's counters.
type PortColumn = (&'static str, &'static str, fn(&PortCounters) -> u64);

/// Name, help, and which of a worker's gauges.
type WorkerColumn = (&'static str, &'static str, fn(&WorkerCounters) -> u64);

const PORT_COLUMNS: [PortColumn; 5] = [
    ("in_packets", "Packets received", |c| c.in_packets),
    ("in_bytes", "Inner bytes received", |c| c.in_bytes),
    ("out_packets", "Packets sent", |c| c.out_packets),
    ("out_bytes", "Inner bytes sent", |c| c.out_bytes),
    ("drops", "Packets dropped", |c| c.drops),
];

fn render(health: &HealthView, measured: Option<&Measurement>, hits: &[RuleHit]) -> String {
    let mut out = Exposition::default();
    out.metric("build_info", "gauge", "The daemon's version.");
    out.sample(&[("version", &health.version)], 1);
    let firmware = health.firmware_alive.map(|alive| {
        ("firmware_up", "Whether the NIC's firmware answers; only on a host with a NIC.", u64::from(alive))
    });
    let progress = &health.progress;
    let gauges = [
        ("up", "Whether the host has no problems.", u64::from(health.ok)),
        ("uptime_seconds", "Seconds since the daemon started.", health.uptime_s),
        ("policy_desired_version", "Version of the policy in the store.", health.desired_version),
        ("policy_applied_version", "Version of the applied policy.", health.applied_version),
        ("vports_wanted", "Vports of the policy on this host.", progress.vports as u64),
        ("vports_done", "Those to which a virtual machine can attach.", progress.vports_done as u64),
        ("uplinks_wanted", "Uplinks that the policy uses.", progress.uplinks as u64),
        ("uplinks_done", "Those that carry all that the policy needs.", progress.uplinks_done as u64),
    ];
    for (name, help, value) in gauges.into_iter().chain(firmware) {
        out.metric(name, "gauge", help);
        out.sample(&[], value);
    }
    if let Some(measured) = measured {
        uplinks(&mut out, measured);
        vports(&mut out, &measured.vports);
        workers(&mut out, &measured.counters);
        others(&mut out, &measured.counters);
        out.metric("drops_total", "counter", "Packets dropped, by reason.");
        for drop in &measured.drops.drops {
            out.sample(&[("reason", &drop.reason), ("by", &drop.by)], drop.packets);
        }
    }
    out.metric(
        "acl_rule_hits_total",
        "counter",
        "Connections that a rule of an access control list decided, and packets that belong to none.",
    );
    for hit in hits {
        let direction = direction_word(hit.direction);
        out.sample(&[("acl", &hit.list), ("direction", &direction), ("rule", &hit.rule)], hit.hits);
    }
    out.text()
}

fn usage(out: &mut Exposition, name: &str, what: &str, usage: Usage) {
    out.metric(name, "gauge", &format!("{what} in use."));
    out.sample(&[], usage.used);
    out.metric(&format!("{name}_capacity"), "gauge", &format!("{what} that there can be."));
    out.sample(&[], usage.capacity);
}

fn uplinks(out: &mut Exposition, measured: &Measurement) {
    out.metric("uplink_up", "gauge", "Whether an uplink has a link.");
    for (n, link) in measured.links.iter().enumerate() {
        out.sample(&[("uplink", &n)], u8::from(*link));
    }
    for (column, help, value) in PORT_COLUMNS {
        out.metric(&format!("uplink_{column}_total"), "counter", &format!("{help}, by uplink."));
        for (name, counters) in &measured.counters.uplinks {
            out.sample(&[("uplink", &name.trim_start_matches("uplink"))], value(counters));
        }
    }
}

fn vports(out: &mut Exposition, vports: &[VportView]) {
    out.metric("vport_info", "gauge", "What a vport is, and what serves it.");
    for v in vports {
        let number = |n: Option<u16>| n.map(|n| n.to_string()).unwrap_or_default();
        out.sample(
            &[
                ("vport", &v.id),
                ("name", &v.name),
                ("network", &v.virtual_network),
                ("vsid", &v.vsid),
                ("served_by", &v.served_by.as_str()),
                ("worker", &number(v.worker)),
            ],
            1,
        );
    }
    out.metric("vport_up", "gauge", "Whether a virtual machine is connected to a vport.");
    for v in vports {
        out.sample(&[("vport", &v.id), ("name", &v.name)], u8::from(v.state == VportState::Up));
    }
    for (column, help, value) in PORT_COLUMNS {
        out.metric(&format!("vport_{column}_total"), "counter", &format!("{help}, by vport."));
        for v in vports {
            out.sample(&[("vport", &v.id), ("name", &v.name)], value(&v.counters));
        }
    }
    out.metric(
        "vport_drop_reasons_total",
        "counter",
        "Packets dropped, by vport and reason, as far as the host knows the reasons.",
    );
    for v in vports {
        for (reason, count) in &v.drop_reasons {
            out.sample(&[("vport", &v.id), ("name", &v.name), ("reason", reason)], *count);
        }
    }
}

fn workers(out: &mut Exposition, counters: &CountersView) {
    let gauges: [WorkerColumn; 5] = [
        ("vports", "Vports that a worker of the switch serves.", |c| c.vports),
        ("flow_records", "Flow records of a worker in use.", |c| c.flows.used),
        ("flow_records_capacity", "Flow records that a worker can hold.", |c| c.flows.capacity),
        ("buffers", "Packet buffers of a worker in use.", |c| c.buffers.used),
        ("buffers_capacity", "Packet buffers of a worker.", |c| c.buffers.capacity),
    ];
    for (name, help, value) in gauges {
        out.metric(&format!("worker_{name}"), "gauge", help);
        for (worker, counters) in &counters.workers {
            out.sample(&[("worker", worker)], value(counters));
        }
    }
    out.metric("worker_busy_seconds_total", "counter", "Time that a worker spent on packets.");
    for (worker, counters) in &counters.workers {
        let seconds = format!("{}.{:03}", counters.busy_ms / 1000, counters.busy_ms % 1000);
        out.sample(&[("worker", worker)], seconds);
    }
}

fn others(out: &mut Exposition, counters: &CountersView) {
    usage(out, "flow_records", "Flow records", counters.flows);
    usage(out, "connections", "Connections", counters.connections);
    out.metric("stale_seconds", "gauge", "Age of the counters, where the datapath does not answer now.");
    out.sample(&[], counters.stale_s.unwrap_or(0));
    let of_vf = |name: &str| Some(name.strip_prefix("vf")?.strip_suffix("_frames_by_message")?.to_owned());
    for (part, values) in [("nic", &counters.nic), ("host", &counters.host)] {
        for (counter, value) in values.iter().filter(|(name, _)| of_vf(name).is_none()) {
            out.metric(
                &format!("{part}_{counter}_total"),
                "counter",
                &format!("Counter \"{counter}\" of the {part}."),
            );
            out.sample(&[], value);
        }
    }
    out.metric(
        "vf_frames_by_message_total",
        "counter",
        "Frames that messages to the VMM of a VF have carried.",
    );
    for (vf, value) in counters.nic.iter().filter_map(|(name, value)| Some((of_vf(name)?, value))) {
        out.sample(&[("vf", &vf)], value);
    }
}
