//! Encapsulated frames from the wire: the parser of outer headers, and the templates that write them.

use std::net::IpAddr;

use culvert_packet::encap::Fill;
use culvert_packet::{Encap, Family, MacAddr, Outer, OuterSpec, craft, parse, parse_outer, verify_udp};

use crate::frames;
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "outer", run, seeds: frames::wire };

/// Runs one input.
pub fn run(frame: &[u8]) {
    let Ok(Some(outer)) = parse_outer(frame) else { return };
    let end = usize::from(outer.inner) + usize::from(outer.inner_len);
    assert!(end <= frame.len() && outer.l3 < outer.l4 && outer.l4 < outer.inner, "{outer:?}");
    assert!(outer.vsid < 1 << 24);
    verify_udp(frame, &outer);
    full_parser(frame, &outer);
    let inner = &frame[usize::from(outer.inner)..end];
    let _inner = parse(inner);
    written_again(&outer, inner);
}

/// Behind a tag only the full parser looks; it must find what the shortcut finds.
fn full_parser(frame: &[u8], outer: &Outer) {
    if outer.l3 != 14 {
        return;
    }
    let mut tagged = [frame, &[0; 4]].concat();
    craft::tag(&mut tagged, frame.len(), 100).expect("there is room");
    let moved = Outer { l3: outer.l3 + 4, l4: outer.l4 + 4, inner: outer.inner + 4, ..*outer };
    assert_eq!(parse_outer(&tagged), Ok(Some(moved)));
}

/// The same in outer headers of our own.
fn written_again(outer: &Outer, inner: &[u8]) {
    let address = |bytes: [u8; 16]| -> IpAddr {
        let [a, b, c, d, ..] = bytes;
        if outer.family == Family::V4 { [a, b, c, d].into() } else { bytes.into() }
    };
    let (src_mac, dst_mac) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let (src, dst) = (address(outer.src), address(outer.dst));
    let spec = OuterSpec { encap: outer.encap, src_mac, dst_mac, vlan: None, src, dst };
    let template = spec.template().expect("addresses of one family");
    let mut out = vec![0; inner.len() + usize::from(template.len)];
    let fill = Fill { inner_len: inner.len(), ecn: 0, entropy: 0xc051, vsid: outer.vsid };
    let Ok(at) = template.write(&fill, &mut out) else { return };
    out[at..].copy_from_slice(inner);
    let again = parse_outer(&out).expect("our own headers are right").expect("and encapsulate");
    let same = (again.encap, again.family, again.vsid, again.src, again.dst, again.inner_len);
    assert_eq!(same, (outer.encap, outer.family, outer.vsid, outer.src, outer.dst, outer.inner_len));
    assert_eq!(out[usize::from(again.inner)..], *inner);
    assert_eq!(again.flow_id, if outer.encap == Encap::Nvgre { 0x51 } else { 0 });
}
