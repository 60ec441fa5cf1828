//! Limits the firmware's instructions per packet, which are counted, not timed.
#![forbid(unsafe_code)]

use std::process::Command;

use serde_json::Value;

/// Guest instructions for one packet that the firmware forwards without the host. A change that needs more gives its reason
/// here.
const LIMIT: f64 = 420.0;

#[test]
fn a_hit_stays_below_the_limit_of_instructions() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_firmware"));
    let output = bench.args(["--json", "--packets", "1000", "--flows", "1000"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
    assert_eq!(rows.len(), 8, "two encapsulations, two directions, two lengths");
    for row in &rows {
        let instructions = row["instructions"].as_f64().unwrap();
        assert!(instructions > 100.0 && instructions < LIMIT, "{row}");
    }
}
