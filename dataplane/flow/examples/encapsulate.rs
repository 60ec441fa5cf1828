//! Parses a frame of a VM and encapsulates it in VXLAN, as the NIC's firmware and the software switch do.
//!
//! `cargo run --package culvert-flow --example encapsulate`

use culvert_flow::hash::entropy;
use culvert_flow::tables::Tunnel;
use culvert_flow::{
    Actions, Applied, Classified, FlowCold, FlowHot, Frame, HashSecret, OuterInfo, Port, apply_record, key,
};
use culvert_packet::{Encap, MacAddr, OuterSpec, Reason, VportId, craft, parse, parse_outer};

/// Room in front of the frame for outer headers.
const HEADROOM: usize = 128;

fn main() -> Result<(), Reason> {
    // A frame as a VM sends it: UDP from one customer address to another.
    let ends = craft::Ends {
        src_mac: MacAddr([2, 0, 0, 0, 1, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 1, 2]),
        src: [10, 1, 1, 11].into(),
        dst: [10, 1, 1, 12].into(),
    };
    let mut buffer = [0; 512];
    let len = craft::udp(&mut buffer[HEADROOM..], &ends, 40_000, 53, b"a query")?;
    let mut frame = Frame::new(&mut buffer, HEADROOM, len).ok_or(Reason::NoBuffer)?;

    // Parse it, and make its flow key: what a flow table looks up.
    let headers = parse(frame.bytes())?;
    println!("frame   {len} bytes, L4 at {}, ports {} > {}", headers.l4, headers.l4_src, headers.l4_dst);
    let key = key::outbound(VportId(0), frame.bytes(), &headers);
    println!("key     {key:?}");

    // The way to the other host: outer headers between two provider addresses, built once for each tunnel.
    let spec = OuterSpec {
        encap: Encap::Vxlan,
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        vlan: None,
        src: [192, 168, 1, 10].into(),
        dst: [192, 168, 2, 20].into(),
    };
    let mut tunnels = [Tunnel::new(&spec.template()?, 0, 1514)];

    // The flow record that the policy engine makes for the key: encapsulate with VNI 5001 by tunnel 0. Real secrets are
    // random.
    let secret = HashSecret([0x9e37_79b9_7f4a_7c15; 9]);
    let mut hot = FlowHot {
        actions: Actions::PUSH_OUTER.bits(),
        tunnel: 0,
        vsid: 5001,
        entropy: entropy(&secret, &key.words()),
        ..FlowHot::default()
    };

    // Apply the record. The frame grows towards the front of its buffer.
    let packet = Classified { key, headers, outer: OuterInfo::default() };
    let record = (&mut hot, &FlowCold::default());
    let applied = apply_record(record, &mut frame, &packet, &mut tunnels, MacAddr::ZERO, 0);
    assert_eq!(applied, Applied::Forward { to: Port::Uplink(0), copy: false, capture: false });

    // What the other host sees.
    let outer = parse_outer(frame.bytes())?.ok_or(Reason::OuterBadHeader)?;
    println!(
        "packet  {} bytes, {:?}, VNI {}, inner frame at {}",
        frame.len(),
        outer.encap,
        outer.vsid,
        outer.inner
    );
    let (headers, inner) = frame.bytes().split_at(usize::from(outer.inner));
    for (n, line) in headers.chunks(16).enumerate() {
        println!("{:6x}  {line:02x?}", n * 16);
    }
    assert_eq!(parse(inner)?, packet.headers, "the inner frame is unchanged");
    Ok(())
}
