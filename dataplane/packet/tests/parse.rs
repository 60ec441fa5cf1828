//! What the fast parser says of tenants' frames. Frames come from scapy where it can make them.

mod frames;

use culvert_packet::{Family, Fragment, Headers, Protocol, Reason, craft, parse};
use frames::hex;

fn parsed(text: &str) -> Headers {
    parse(&hex(text)).unwrap()
}

#[test]
fn tcp_over_ipv4() {
    let expected = Headers {
        l3: 14,
        l4: 34,
        l3_len: 60,
        ethertype: 0x0800,
        l4_src: 40000,
        l4_dst: 1433,
        family: Family::V4,
        protocol: 6,
        ttl: 63,
        tos: 0x2a,
        tcp_flags: 0x18,
        ..Headers::default()
    };
    assert_eq!(parsed(frames::TCP4), expected);
}

#[test]
fn udp_over_ipv4_however_short() {
    let frame = hex(frames::UDP4);
    let h = parse(&frame).unwrap();
    assert_eq!((h.l4, h.l4_src, h.l4_dst, h.protocol, h.tcp_flags), (34, 5353, 53, 17, 0));
    // Without its payload it is below what the fast path reads.
    let mut short = frame[..42].to_vec();
    short[16..18].copy_from_slice(&28u16.to_be_bytes());
    let s = parse(&short).unwrap();
    assert_eq!(s, Headers { l3_len: 28, ..h });
}

#[test]
fn icmp_gives_type_and_identifier() {
    let h = parsed(frames::PING4);
    assert_eq!((h.protocol, h.l4, h.l4_src, h.l4_dst), (1, 34, 8, 0x1234));
    let mut unreachable = hex(frames::PING4);
    unreachable[34..36].copy_from_slice(&[3, 4]);
    let h = parse(&unreachable).unwrap();
    assert_eq!((h.l4_src, h.l4_dst), (3, 4));
}

#[test]
fn ipv6_with_and_without_extension_headers() {
    let h = parsed(frames::TCP6);
    assert_eq!((h.family, h.l3_len, h.l4, h.ttl, h.tos, h.tcp_flags), (Family::V6, 60, 54, 61, 0x2b, 2));
    let h = parsed(frames::UDP6_EXT);
    assert_eq!((h.protocol, h.l4, h.l4_src, h.l4_dst), (17, 78, 1000, 2000));
    let h = parsed(frames::NS);
    assert_eq!((h.protocol, h.l4_src, h.l4_dst, h.ttl), (58, 135, 0, 255));
}

#[test]
fn fragments_have_a_class_and_only_the_first_has_ports() {
    let first = parsed(frames::FRAG6_FIRST);
    assert_eq!((first.fragment, first.protocol, first.l4, first.l4_dst), (Fragment::First, 17, 62, 2000));
    let later = parsed(frames::FRAG6_LATER);
    assert_eq!((later.fragment, later.protocol, later.l4, later.l4_dst), (Fragment::Later, 17, 0, 0));

    let mut buffer = [0; 256];
    for (offset, more, class) in
        [(0, true, Fragment::First), (3, true, Fragment::Later), (3, false, Fragment::Later)]
    {
        let n = craft::fragment(&mut buffer, &ends(), Protocol::UDP, offset, more, &[9; 24]).unwrap();
        let h = parse(&buffer[..n]).unwrap();
        assert_eq!((h.fragment, h.l4 != 0), (class, class == Fragment::First));
    }
}

#[test]
fn fragments_that_hide_a_transport_header_are_refused() {
    let mut buffer = [0; 256];
    // RFC 1858: too short for TCP's flags, and overwriting them.
    for (offset, more, len) in [(0, true, 16), (1, false, 16)] {
        let n = craft::fragment(&mut buffer, &ends(), Protocol::TCP, offset, more, &[0; 20][..len]).unwrap();
        assert_eq!(parse(&buffer[..n]), Err(Reason::TinyFragment));
    }
}

#[test]
fn arp_is_recognised_and_odd_arp_refused() {
    let mut frame = hex(frames::ARP);
    let h = parse(&frame).unwrap();
    assert_eq!((h.family, h.ethertype, h.l3, h.l4), (Family::Arp, 0x0806, 14, 0));
    frame[18] = 8;
    assert_eq!(parse(&frame), Err(Reason::Unsupported));
    frame.truncate(41);
    assert_eq!(parse(&frame), Err(Reason::Truncated));
}

#[test]
fn a_vlan_tag_and_options_move_the_headers() {
    let h = parsed(frames::VLAN_OPTIONS);
    assert_eq!((h.tagged, h.vlan_tci, h.vlan_id()), (true, 0xa064, 100));
    assert_eq!((h.l3, h.l4, h.ethertype, h.l4_src, h.l4_dst), (18, 42, 0x0800, 1, 2));
}

#[test]
fn a_tag_changes_nothing_but_offsets() {
    // The tagged frame takes the general way, the untagged one the fast path: both must say the same.
    for text in [
        frames::TCP4,
        frames::UDP4,
        frames::PING4,
        frames::TCP6,
        frames::UDP6_EXT,
        frames::FRAG6_FIRST,
        frames::ARP,
    ] {
        let mut frame = hex(text);
        let plain = parse(&frame).unwrap();
        let len = frame.len();
        frame.resize(len + 4, 0);
        craft::tag(&mut frame, len, 0x6007).unwrap();
        let l4 = if plain.l4 == 0 { 0 } else { plain.l4 + 4 };
        let expected = Headers { tagged: true, vlan_tci: 0x6007, l3: 18, l4, ..plain };
        assert_eq!(parse(&frame), Ok(expected));
    }
}

#[test]
fn a_second_tag_and_lengths_are_unsupported() {
    let mut frame = hex(frames::UDP4);
    let len = frame.len();
    frame.resize(len + 8, 0);
    craft::tag(&mut frame, len, 1).unwrap();
    craft::tag(&mut frame, len + 4, 2).unwrap();
    assert_eq!(parse(&frame), Err(Reason::Unsupported));
    let mut llc = hex(frames::UDP4);
    llc[12..14].copy_from_slice(&38u16.to_be_bytes());
    assert_eq!(parse(&llc), Err(Reason::Unsupported));
    // An unknown EtherType is nobody's fault.
    llc[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
    assert_eq!(parse(&llc).map(|h| (h.family, h.ethertype)), Ok((Family::Other, 0x88b5)));
}

#[test]
fn padding_is_accepted_and_truncation_is_not() {
    for text in
        [frames::TCP4, frames::UDP4, frames::PING4, frames::TCP6, frames::UDP6_EXT, frames::VLAN_OPTIONS]
    {
        let whole = hex(text);
        let mut padded = whole.clone();
        padded.resize(whole.len() + 10, 0xee);
        assert_eq!(parse(&padded), parse(&whole));
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), Err(Reason::Truncated), "{len} bytes of {text}");
        }
    }
}

#[test]
fn malformed_ip_headers_have_their_reasons() {
    let with = |at: usize, value: u8| {
        let mut frame = hex(frames::TCP4);
        frame[at] = value;
        parse(&frame)
    };
    assert_eq!(with(14, 0x65), Err(Reason::BadVersion));
    assert_eq!(with(14, 0x44), Err(Reason::BadHeaderLength));
    assert_eq!(with(17, 19), Err(Reason::BadHeaderLength));
    assert_eq!(with(17, 61), Err(Reason::Truncated));
    // Says to be TCP, but ends before its header does.
    assert_eq!(with(17, 39), Err(Reason::Truncated));
    let mut v6 = hex(frames::TCP6);
    v6[14] = 0x40;
    assert_eq!(parse(&v6), Err(Reason::BadVersion));
}

#[test]
fn extension_headers_are_bounded() {
    // 100 destination option headers, each naming the next.
    let mut frame = hex(frames::TCP6)[..54].to_vec();
    frame[20] = 60;
    for _ in 0..100 {
        frame.extend([60, 0, 1, 4, 0, 0, 0, 0]);
    }
    frame[18..20].copy_from_slice(&800u16.to_be_bytes());
    assert_eq!(parse(&frame), Err(Reason::Unsupported));
    // No next header: IP, but nothing in it.
    frame[20] = 59;
    assert_eq!(parse(&frame).map(|h| (h.protocol, h.l4)), Ok((59, 0)));
}

fn ends() -> craft::Ends {
    craft::Ends {
        src_mac: [0, 0x1d, 0xd8, 7, 0, 1].into(),
        dst_mac: [0, 0x1d, 0xd8, 7, 0, 2].into(),
        src: [10, 1, 1, 11].into(),
        dst: [10, 1, 1, 12].into(),
    }
}
