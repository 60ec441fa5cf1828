//! Runs the example, and checks its report.

#[path = "../examples/replay.rs"]
#[allow(dead_code, reason = "the example has a main function of its own")]
mod replay;

use std::path::Path;

#[test]
fn the_example_forwards_two_packets_and_drops_one() {
    let report = replay::replay(Path::new(env!("CARGO_BIN_EXE_culvert"))).unwrap();
    assert!(report.contains("spoofed_mac"), "{report}");
    assert!(report.contains("3 packets into contoso-sql of host1"), "{report}");
    assert!(report.contains("1 drop, 2 forward"), "{report}");
}
