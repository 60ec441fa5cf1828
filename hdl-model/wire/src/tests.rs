//! How wires are named on the command line, and what the kernel's tables say of them.

use super::tap::transmit_drops;
use super::{PACE, WireSpec};

fn pcap(input: Option<&str>, output: Option<&str>, pace: u32) -> Result<WireSpec, String> {
    Ok(WireSpec::Pcap { input: input.map(Into::into), output: output.map(Into::into), pace })
}

#[test]
fn wires_are_named_by_kind_and_place() {
    for (text, wire) in [
        ("af_packet:eth1", Ok(WireSpec::AfPacket("eth1".into()))),
        ("tap:tap0", Ok(WireSpec::Tap("tap0".into()))),
        ("unix:a,b", Ok(WireSpec::Unix { own: "a".into(), other: "b".into() })),
        ("pcap:in.pcap", pcap(Some("in.pcap"), None, PACE)),
        ("pcap:in.pcap,out.pcapng", pcap(Some("in.pcap"), Some("out.pcapng"), PACE)),
        ("pcap:,out.pcapng", pcap(None, Some("out.pcapng"), PACE)),
        ("pcap:in.pcap,,50", pcap(Some("in.pcap"), None, 50)),
    ] {
        assert_eq!(text.parse::<WireSpec>().map_err(|e| e.to_string()), wire, "{text}");
    }
}

#[test]
fn what_is_no_wire_is_told_what_would_be_one() {
    for text in
        ["", "eth0", "tap:", "tap", "pcap:", "pcap:,", "pcap:a,b,0", "pcap:a,b,fast", "unix:a", "veth:a"]
    {
        let error = text.parse::<WireSpec>().expect_err(text).to_string();
        assert!(error.contains(&format!("{text:?}")) && error.contains("tap:INTERFACE"), "{error}");
    }
}

const INTERFACES: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:   10       1    0    2    0     0          0         0       30       4    0    5    0     0       0          0
  tap0:   11       2    0    3    0     0          0         0       40       5    0    7    0     0       0          0
";

#[test]
fn drops_of_a_tap_are_those_of_its_transmitter() {
    assert_eq!(transmit_drops(INTERFACES, "tap0"), Some(7));
    assert_eq!(transmit_drops(INTERFACES, "lo"), Some(5));
    assert_eq!(transmit_drops(INTERFACES, "tap"), None);
    assert_eq!(transmit_drops("tap0: 1 2", "tap0"), None);
}
