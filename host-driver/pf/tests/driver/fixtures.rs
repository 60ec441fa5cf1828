//! Frames, records and vports that the tests share.

use std::net::IpAddr;

use culvert_abi::{FlowHot, FlowRecord, Vport};
use culvert_flow::Port;
use culvert_packet::MacAddr;
use culvert_packet::craft::{self, Ends};

/// A UDP frame from port `n`.
pub(crate) fn frame(n: u16) -> Vec<u8> {
    let ends = Ends {
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        src: IpAddr::from([10, 1, 1, 11]),
        dst: IpAddr::from([10, 1, 1, 12]),
    };
    let mut frame = vec![0; 128];
    let len = craft::udp(&mut frame, &ends, n, 53, b"payload").unwrap();
    frame.truncate(len);
    frame
}

/// A record that sends [`frame`] `n` out of uplink 0 unchanged.
pub(crate) fn record(n: u16) -> FlowRecord {
    let frame = frame(n);
    let headers = culvert_packet::parse(&frame).unwrap();
    let key = culvert_flow::key::outbound(culvert_packet::VportId(0), &frame, &headers);
    FlowRecord {
        key,
        hot: FlowHot { out: Port::Uplink(0).bits(), ..FlowHot::default() },
        ..FlowRecord::default()
    }
}

/// A vport that is up.
pub(crate) fn vport(target: u16, number: u16) -> Vport {
    let flags = Vport::PRESENT | Vport::UP;
    Vport { flags, target, number, vsid: 5001, quota: 1000, ..Vport::default() }
}
