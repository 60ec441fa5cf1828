//! Frames of a VM: the parser, edits in place, the headers of each protocol, segmentation.

use culvert_packet::segment::{MAX_HEADERS, Segmentation};
use culvert_packet::{
    ChecksumState, Fragment, Gso, Headers, MacAddr, Offload, Protocol, arp, edit, ethernet, icmp, ipv4, ipv6,
    nvgre, parse, tcp, udp, vlan, vxlan,
};

use crate::frames;
use crate::input::Input;
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "frame", run, seeds };

/// Segmentation and its size, then the frame.
fn seeds() -> Vec<Vec<u8>> {
    let with = |(n, frame): (usize, Vec<u8>)| [&[(n % 4) as u8, 40, 0][..], &frame].concat();
    frames::tenant().into_iter().chain(frames::wire()).enumerate().map(with).collect()
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (gso, mss) = (input.byte(), input.u16());
    let frame = input.rest();
    headers(frame);
    segments(frame, gso, mss);
    if let Ok(h) = parse(frame) {
        let len = frame.len();
        assert!(usize::from(h.l3) <= len && usize::from(h.l4) <= len, "{h:?}");
        assert!(usize::from(h.l3) + usize::from(h.l3_len) <= len, "{h:?}");
        edits(frame, &h);
    }
}

/// Edits leave what they do not edit, and never reach outside the frame.
fn edits(frame: &[u8], h: &Headers) {
    let edited = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = frame.to_vec();
        change(&mut bytes);
        parse(&bytes)
    };
    let ports = matches!(Protocol(h.protocol), Protocol::TCP | Protocol::UDP) && h.l4 != 0;
    if ports && h.fragment != Fragment::Later {
        let there = edited(&|bytes| {
            edit::set_src_port(bytes, h, 4242);
            edit::set_dst_port(bytes, h, 4343);
        });
        assert_eq!(there, Ok(Headers { l4_src: 4242, l4_dst: 4343, ..*h }));
    }
    let there = edited(&|bytes| {
        edit::set_dst_mac(bytes, MacAddr::BROADCAST);
        edit::set_src_addr(bytes, h, &[1; 16]);
        edit::set_dst_addr(bytes, h, &[2; 16]);
    });
    assert_eq!(there, Ok(*h), "addresses are not what the parser looks at");
    // A tag goes on and off again.
    let mut room = [&[0; 4], frame].concat();
    if let Some(start) = edit::push_vlan(&mut room, 4, 0x2007) {
        assert_eq!(edit::pop_vlan(&mut room, start), Some(4));
        assert_eq!(room[4..], *frame);
    }
    // On a frame that is shorter than when it was parsed.
    for cut in [frame.len(), frame.len() / 2, 0] {
        let bytes = &mut frame.to_vec()[..cut];
        edit::decrement_ttl(bytes, h);
        edit::set_src_addr(bytes, h, &[1, 2, 3, 4]);
        edit::set_src_port(bytes, h, 1);
        edit::set_icmp_identifier(bytes, h, 3);
        edit::decapsulate_ecn(bytes, h, 3);
        edit::pop_vlan(bytes, 0);
    }
}

/// What a header's parser accepts, its writer writes, and the parser reads again.
fn headers(frame: &[u8]) {
    let mut out = [0; 128];
    macro_rules! again {
        ($parse:expr, $header:ident) => {
            if let Ok(($header, rest)) = $parse(frame) {
                assert!(rest.len() <= frame.len());
                if let Ok(len) = $header.emit(&mut out) {
                    let whole = [&out[..len], rest].concat();
                    assert_eq!($parse(&whole), Ok(($header, rest)));
                }
            }
        };
    }
    again!(ethernet::Header::parse, header);
    again!(vlan::Header::parse, header);
    again!(vxlan::Header::parse, header);
    again!(nvgre::Header::parse, header);
    again!(ipv4::Header::parse, header);
    again!(ipv6::Header::parse, header);
    if let Ok(packet) = arp::Packet::parse(frame) {
        let len = packet.emit(&mut out).expect("it fits");
        assert_eq!(arp::Packet::parse(&out[..len]), Ok(packet));
    }
    let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let (mut tcp_out, mut udp_out, mut icmp_out) = (frame.to_vec(), frame.to_vec(), frame.to_vec());
    if let Ok((header, _)) = tcp::Header::parse(frame)
        && header.emit(src, dst, &mut tcp_out).is_ok()
    {
        assert!(tcp::verify(src, dst, &tcp_out));
    }
    if let Ok((header, _)) = udp::Header::parse(frame)
        && header.emit(src, dst, &mut udp_out).is_ok()
    {
        assert!(udp::verify(src, dst, &udp_out));
    }
    if let Ok((header, _)) = icmp::Header::parse(frame)
        && header.emit(src, dst, &mut icmp_out).is_ok()
    {
        assert!(icmp::verify(src, dst, &icmp_out));
    }
    let _neighbour = icmp::Neighbour::parse(frame);
    if let Some((next, rest)) = frame.split_first()
        && let Ok(found) = ipv6::walk(rest, *next)
    {
        assert!(found.length <= rest.len());
    }
}

/// The segments of a large frame hold its payload, each byte once.
fn segments(frame: &[u8], gso: u8, mss: u16) {
    let Some(gso) = Gso::from_u8(gso % 4) else { return };
    let offload = Offload { checksum: ChecksumState::Partial, gso, mss, ..Offload::default() };
    let Some(cut) = Segmentation::of(frame, &offload) else { return };
    assert!(cut.headers() <= MAX_HEADERS && cut.count() <= frame.len().max(1));
    let (mut header, mut at, mut sum) = ([0; MAX_HEADERS], cut.headers(), 0);
    for n in 0..cut.count() {
        let (len, payload) = cut.segment(frame, n, &mut header);
        assert_eq!((len, payload.start), (cut.headers(), at), "segment {n} of {cut:?}");
        assert!(len + payload.len() <= cut.longest());
        let whole = [&header[..len], &frame[payload.clone()]].concat();
        if !cut.is_encapsulated() {
            parse(&whole).expect("a segment is a frame");
        }
        at = payload.end;
        sum += payload.len();
    }
    assert!(at <= frame.len() && sum == at - cut.headers());
    let mut whole = frame.to_vec();
    let (left, _) = cut.leave_whole(&mut whole, &offload);
    assert!(left.fill_checksum(&mut whole));
}
