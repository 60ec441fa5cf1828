//! Which frames a packet socket's filter accepts.

use std::net::{IpAddr, Ipv6Addr};

use culvert_packet::{Encap, OuterSpec, Protocol, craft, tcp};
use culvert_ports::{AfPacketOptions, Filter};
use culvert_switch::SwitchPort;

use crate::frames::{built, ends};
use crate::namespace::{Namespace, can_make_namespaces};
use crate::test_port::TestPort;

/// A named frame, and which ports receive it.
pub(crate) type Case = (&'static str, Vec<u8>, Goes);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Goes {
    /// Every port that takes the overlay.
    Overlay,
    /// Every port that also takes control traffic.
    Control,
    /// The same, except XDP: the frame does not concern the provider address, and the kernel must get it.
    ControlOfAll,
    /// Ports that take everything.
    Elsewhere,
}

pub(crate) fn encapsulated(encap: Encap, dst: IpAddr) -> Vec<u8> {
    let ends = ends(dst);
    let (src_mac, dst_mac, src) = (ends.src_mac, ends.dst_mac, ends.src);
    let template = OuterSpec { encap, src_mac, dst_mac, vlan: None, src, dst }.template().unwrap();
    built(|out| craft::encapsulated(out, &template, 5001, 9, &[0xab; 60]).unwrap())
}

fn udp(dst: IpAddr, from: u16, to: u16) -> Vec<u8> {
    built(|out| craft::udp(out, &ends(dst), from, to, &[1; 50]).unwrap())
}

fn ip(dst: IpAddr, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    built(|out| craft::ip_packet(out, &ends(dst), protocol, payload).unwrap())
}

fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0xa0, 5]);
    frame
}

fn changed(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// The frame with an IPv4 option of four bytes in front of the UDP header.
fn with_option(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(34..34, [1; 4]);
    frame[14] = 0x46;
    frame
}

/// One each, for a provider address and another address of its family; `foreign` is of the other family.
pub(crate) fn cases(ours: IpAddr, other: IpAddr, foreign: IpAddr) -> Vec<Case> {
    use Goes::{Control, ControlOfAll, Elsewhere, Overlay};
    let ports = tcp::Header { src_port: 4789, dst_port: 4789, ..tcp::Header::default() };
    let mut cases = vec![
        ("VXLAN", encapsulated(Encap::Vxlan, ours), Overlay),
        ("VXLAN with a tag", tagged(encapsulated(Encap::Vxlan, ours)), Overlay),
        ("GRE", encapsulated(Encap::Nvgre, ours), Overlay),
        ("GRE with a tag", tagged(encapsulated(Encap::Nvgre, ours)), Overlay),
        ("malformed GRE", ip(ours, Protocol::GRE, &[0xff]), Overlay),
        ("VXLAN to another", encapsulated(Encap::Vxlan, other), Elsewhere),
        ("GRE to another", encapsulated(Encap::Nvgre, other), Elsewhere),
        ("VXLAN of the other family", encapsulated(Encap::Vxlan, foreign), Elsewhere),
        ("another port", udp(ours, 4789, 4790), Elsewhere),
        ("DNS", udp(ours, 53, 40_000), Elsewhere),
        ("TCP", built(|out| craft::tcp(out, &ends(ours), &ports, &[]).unwrap()), Elsewhere),
        ("another protocol", ip(ours, Protocol(132), &[0x12, 0xb5, 0x12, 0xb5]), Elsewhere),
        ("ICMP", built(|out| craft::ping(out, &ends(ours), 1, 1, &[]).unwrap()), Control),
        ("truncated", ip(ours, Protocol::UDP, &[0x12]), Elsewhere),
        (
            "LLDP",
            built(|out| {
                out[12..14].copy_from_slice(&[0x88, 0xcc]);
                60
            }),
            Elsewhere,
        ),
    ];
    if let (IpAddr::V6(address), IpAddr::V6(another)) = (ours, other) {
        // RFC 4291, 2.7.1, and RFC 4861, 4.3.
        let first: Ipv6Addr = "ff02::1:ff00:0".parse().unwrap();
        let group = Ipv6Addr::from_bits(first.to_bits() | address.to_bits() & 0xff_ffff);
        let solicitation = |of: Ipv6Addr| {
            let body = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &of.octets()].concat();
            ip(group.into(), Protocol::ICMPV6, &body)
        };
        cases.extend([
            ("solicitation", solicitation(address), Control),
            ("solicitation of another", solicitation(another), ControlOfAll),
        ]);
    }
    if ours.is_ipv4() {
        let arp = |target: IpAddr| {
            let IpAddr::V4(target) = target else { unreachable!("the same family") };
            built(|out| {
                out[12..14].copy_from_slice(&[8, 6]);
                out[38..42].copy_from_slice(&target.octets());
                42
            })
        };
        cases.extend([
            ("VXLAN behind an option", with_option(encapsulated(Encap::Vxlan, ours)), Overlay),
            ("another port behind an option", with_option(udp(ours, 4789, 4790)), Elsewhere),
            ("a first fragment", changed(encapsulated(Encap::Vxlan, ours), 20, 0x20), Overlay),
            ("a later fragment", changed(encapsulated(Encap::Vxlan, ours), 21, 7), Elsewhere),
            ("ARP", arp(ours), Control),
            ("ARP with a tag", tagged(arp(ours)), Control),
            ("ARP about another", arp(other), ControlOfAll),
            ("ICMP to another", built(|out| craft::ping(out, &ends(other), 1, 1, &[]).unwrap()), Elsewhere),
        ]);
    }
    cases
}

fn check_filter(address: &str, other: &str, foreign: &str) {
    let [address, other, foreign] = [address, other, foreign].map(|text| text.parse().unwrap());
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let open = |filter| {
        TestPort::packet_socket(&here, "wire", AfPacketOptions { filter, ..AfPacketOptions::default() })
    };
    let ports = [
        (open(Filter::Overlay { address, control: false }), vec![Goes::Overlay]),
        (
            open(Filter::Overlay { address, control: true }),
            vec![Goes::Overlay, Goes::Control, Goes::ControlOfAll],
        ),
        (open(Filter::Everything), vec![Goes::Overlay, Goes::Control, Goes::ControlOfAll, Goes::Elsewhere]),
    ];
    let mut sender = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let cases = cases(address, other, foreign);
    let mut frames: Vec<Vec<u8>> = cases.iter().map(|case| case.1.clone()).collect();
    let end = [encapsulated(Encap::Vxlan, address), b"the end".to_vec()].concat();
    frames.push(end.clone());
    assert_eq!(sender.send(&frames).packets, frames.len() as u64);
    for (mut near, goes) in ports {
        let mut got = near.receive_until(|frame| frame == end);
        got.pop();
        let names = got.iter().filter_map(|frame| cases.iter().find(|case| case.1 == *frame));
        let names: Vec<&str> = names.map(|case| case.0).collect();
        let expected: Vec<&str> = cases.iter().filter(|c| goes.contains(&c.2)).map(|c| c.0).collect();
        assert_eq!(names, expected, "{goes:?}");
        assert_eq!(near.port.take_rx_drops(), 0);
    }
}

#[test]
fn the_overlay_over_ipv4_and_nothing_else() {
    if can_make_namespaces() {
        check_filter("192.0.2.1", "192.0.2.129", "2001:db8::c000:201");
    }
}

#[test]
fn the_overlay_over_ipv6_and_nothing_else() {
    if can_make_namespaces() {
        check_filter("2001:db8::2", "2001:db8:1::2", "192.0.2.1");
    }
}
