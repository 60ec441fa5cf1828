//! Runs the example, and checks what it shows.

#[path = "../examples/decide.rs"]
#[allow(dead_code, reason = "the example has a main function of its own")]
mod decide;

#[test]
fn the_example_forwards_one_flow_and_drops_two() {
    let report = decide::example();
    for line in ["=> forward through tunnel 7", "=> drop: acl_deny", "=> drop: spoofed_ca", "1 connection"] {
        assert!(report.contains(line), "no {line:?} in\n{report}");
    }
    assert!(report.contains("deny-telnet"), "{report}");
}
