//! How wires are named on the command line.

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
