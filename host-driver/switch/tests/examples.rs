//! Runs the example.

#[path = "../examples/two_ports.rs"]
#[allow(dead_code, reason = "the example has a main function of its own")]
mod two_ports;

#[test]
fn the_example_forwards_the_frame_unchanged() {
    assert_eq!(two_ports::example().unwrap(), two_ports::datagram().unwrap());
}
