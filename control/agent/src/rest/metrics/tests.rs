//! The format, by Prometheus' own rules where `promtool` is installed, and by a strict reader of our own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use culvert_api::view::{DropEntry, DropsView, WorkerCounters};
use culvert_policy::ListDirection;

use super::*;

/// A host with something of everything, and a name that needs escaping.
fn example() -> String {
    let port = PortCounters { in_packets: 1, in_bytes: 60, out_packets: 2, out_bytes: 120, drops: 3 };
    let vport = |id: u16, name: &str| VportView {
        id,
        name: name.to_owned(),
        virtual_network: "contoso".to_owned(),
        vsid: 5001,
        worker: Some(0),
        state: VportState::Up,
        counters: port.clone(),
        drop_reasons: [("acl_deny".to_owned(), 2), ("ring_full".to_owned(), 1)].into(),
        ..VportView::default()
    };
    let counters = CountersView {
        uplinks: [("uplink0".to_owned(), port.clone())].into(),
        workers: [(0, WorkerCounters { vports: 2, busy_ms: 1020, ..WorkerCounters::default() })].into(),
        nic: [("finished".to_owned(), 5), ("vf3_frames_by_message".to_owned(), 8)].into(),
        host: [("upcalls".to_owned(), 6)].into(),
        flows: Usage { used: 7, capacity: 1024 },
        connections: Usage { used: 4, capacity: 512 },
        ..CountersView::default()
    };
    let drop =
        DropEntry { reason: "acl_deny".into(), packets: 3, by: "software".into(), ..DropEntry::default() };
    let measured = Measurement {
        links: vec![true, false],
        vports: vec![vport(0, "web"), vport(3, "a \"quoted\" \\ name\nwith a line")],
        counters,
        drops: DropsView { drops: vec![drop], total: 3, stale_s: None },
    };
    let hit =
        RuleHit { list: "web".into(), direction: ListDirection::Inbound, rule: "default".into(), hits: 9 };
    render(&HealthView { version: "1.2.3".into(), ..HealthView::default() }, Some(&measured), &[hit])
}

#[test]
fn numbers_and_names_are_labels_of_their_own_and_are_escaped() {
    let text = example();
    for line in [
        "culvert_vport_in_packets_total{vport=\"0\",name=\"web\"} 1",
        "culvert_vport_in_packets_total{vport=\"3\",name=\"a \\\"quoted\\\" \\\\ name\\nwith a line\"} 1",
        "culvert_vport_drop_reasons_total{vport=\"0\",name=\"web\",reason=\"acl_deny\"} 2",
        "culvert_uplink_up{uplink=\"0\"} 1",
        "culvert_uplink_up{uplink=\"1\"} 0",
        "culvert_flow_records 7",
        "culvert_flow_records_capacity 1024",
        "culvert_connections 4",
        "culvert_connections_capacity 512",
        "culvert_worker_busy_seconds_total{worker=\"0\"} 1.020",
        "culvert_host_upcalls_total 6",
        "culvert_vf_frames_by_message_total{vf=\"3\"} 8",
        "culvert_acl_rule_hits_total{acl=\"web\",direction=\"inbound\",rule=\"default\"} 9",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is missing in:\n{text}");
    }
}

/// Splits a sample into its metric, labels and value.
fn sample(line: &str) -> (String, String, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) =
        series.split_once('{').map_or((series, ""), |(n, l)| (n, l.strip_suffix('}').unwrap()));
    (name.to_owned(), labels.to_owned(), value.parse().unwrap())
}

#[test]
fn each_metric_has_help_and_type_and_each_series_one_value() {
    let text = example();
    let (mut kinds, mut helped, mut series) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(
                helped.contains(name) && kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}: a gauge is no total");
        } else {
            let (name, labels, _) = sample(line);
            assert!(kinds.contains_key(&name), "{line}");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{line}"
            );
            assert!(series.insert((name, labels)), "{line} is there twice");
        }
    }
}

#[test]
fn promtool_has_nothing_to_say() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        return culvert_skip::skip("promtool is not installed");
    };
    promtool.stdin.take().unwrap().write_all(example().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
