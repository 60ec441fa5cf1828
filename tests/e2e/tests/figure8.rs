//! The demo, as a user runs it.
#![forbid(unsafe_code)]

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn the_demo_with_nics_succeeds() {
    succeeds("none");
}

#[test]
fn the_demo_with_software_hosts_succeeds() {
    succeeds("all");
}

#[test]
fn the_demo_with_a_nic_and_a_software_host_succeeds() {
    succeeds("mixed");
}

fn succeeds(software: &str) {
    let out = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_culvert-demo"));
    demo.args(["--json", "--mib", "16", "--software", software, "--out"]).arg(out.path());
    demo.stdin(Stdio::null());
    let output = demo.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
    assert_eq!(report["shortcomings"], Value::Array(Vec::new()), "{report:#}");
    assert!(output.status.success(), "{}", output.status);

    let list = |value: &Value| value.as_array().unwrap().clone();
    let rounds = list(&report["rounds"]);
    let encapsulations: Vec<_> = rounds.iter().map(|r| r["encapsulation"].as_str().unwrap()).collect();
    assert_eq!(encapsulations, ["VXLAN", "NVGRE"]);
    for pair in rounds.iter().flat_map(|r| list(&r["pairs"])) {
        assert_eq!((&pair["intact"], &pair["bytes"]), (&true.into(), &(16 << 20).into()), "{pair}");
        for ping in list(&pair["pings"]) {
            assert_eq!(ping["received"], 5, "{ping}");
        }
    }
    for host in list(&report["hosts"]) {
        let (frames, finished) = (host["frames"].as_f64().unwrap(), host["finishedAlone"].as_f64().unwrap());
        assert!(finished / frames >= 0.999, "{host}");
    }
    assert_eq!(report["hosts"][0]["drops"], serde_json::json!({ "isolated": 1 }));
    assert_eq!(report["hosts"][1]["drops"], serde_json::json!({ "acl_deny": 1 }));
    let captures = list(&report["captures"]);
    assert_eq!(captures.len(), 4);
    for capture in &captures {
        assert_eq!((&capture["problems"], &capture["lostSegments"]), (&0.into(), &0.into()), "{capture}");
        assert!(std::path::Path::new(capture["file"].as_str().unwrap()).exists());
    }
    let frames = |kind: &str| captures.iter().map(|c| c[kind].as_u64().unwrap()).sum::<u64>();
    // Each tenant's segments, out of one host and into the other.
    let segments = (16 << 20) / 1460;
    assert!(frames("vxlan") > 4 * segments && frames("nvgre") > 4 * segments, "{captures:?}");
}
