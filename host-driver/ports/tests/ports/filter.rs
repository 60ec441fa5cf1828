//! Which frames a packet socket's filter accepts.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use culvert_netlink::OverlaySource;
use culvert_packet::{Encap, OuterSpec, Protocol, craft, tcp};
use culvert_ports::{AfPacketOptions, Filter, OverlaySources};
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
    /// The same, unless it takes known sources only.
    UnknownSource,
    /// Every port that also takes control traffic.
    Control,
    /// The same, except XDP: the frame does not concern the provider address, and the kernel must get it.
    ControlOfAll,
    /// Ports that take everything.
    Elsewhere,
}

/// The virtual subnet of [`encapsulated`].
const VSID: u32 = 5001;

pub(crate) fn encapsulated(encap: Encap, dst: IpAddr) -> Vec<u8> {
    encapsulated_of(encap, dst, VSID, ends(dst).src)
}

fn encapsulated_of(encap: Encap, dst: IpAddr, vsid: u32, src: IpAddr) -> Vec<u8> {
    let (src_mac, dst_mac) = (ends(dst).src_mac, ends(dst).dst_mac);
    let template = OuterSpec { encap, src_mac, dst_mac, vlan: None, src, dst }.template().unwrap();
    built(|out| craft::encapsulated(out, &template, vsid, 9, &[0xab; 60]).unwrap())
}

/// The source of [`encapsulated`].
pub(crate) fn source(address: IpAddr) -> OverlaySource {
    OverlaySource { vsid: VSID, address: ends(address).src }
}

/// A filter for an address of the kernel's: the sender of [`encapsulated`] is a known source.
pub(crate) fn kernel_filter(address: IpAddr) -> Filter {
    // Others, so that there is something to search.
    let more = (0..300).map(|n| OverlaySource { vsid: 70_000 + 5 * n, address: ends(address).src });
    let sources = OverlaySources::default();
    sources.set(more.chain([source(address)]).collect::<BTreeSet<_>>()).unwrap();
    Filter::Kernel { address, sources }
}

fn udp(dst: IpAddr, from: u16, to: u16) -> Vec<u8> {
    built(|out| craft::udp(out, &ends(dst), from, to, &[1; 50]).unwrap())
}

fn udp_of(dst: IpAddr, to: u16, payload: &[u8]) -> Vec<u8> {
    built(|out| craft::udp(out, &ends(dst), 9, to, payload).unwrap())
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
    use Goes::{Control, ControlOfAll, Elsewhere, Overlay, UnknownSource};
    let ports = tcp::Header { src_port: 4789, dst_port: 4789, ..tcp::Header::default() };
    let behind_ip = if ours.is_ipv4() { 34 } else { 54 };
    let mut cases = vec![
        ("VXLAN", encapsulated(Encap::Vxlan, ours), Overlay),
        ("VXLAN with a tag", tagged(encapsulated(Encap::Vxlan, ours)), Overlay),
        ("GRE", encapsulated(Encap::Nvgre, ours), Overlay),
        ("GRE with a tag", tagged(encapsulated(Encap::Nvgre, ours)), Overlay),
        ("malformed GRE", ip(ours, Protocol::GRE, &[0xff]), UnknownSource),
        ("another VNI", encapsulated_of(Encap::Vxlan, ours, VSID + 1, ends(ours).src), UnknownSource),
        ("another key", encapsulated_of(Encap::Nvgre, ours, VSID - 1, ends(ours).src), UnknownSource),
        ("another host's VNI", encapsulated_of(Encap::Vxlan, ours, VSID, other), UnknownSource),
        ("another host's key", encapsulated_of(Encap::Nvgre, ours, VSID, other), UnknownSource),
        ("VXLAN without a VNI", changed(encapsulated(Encap::Vxlan, ours), behind_ip + 8, 0), UnknownSource),
        ("GRE without a key", changed(encapsulated(Encap::Nvgre, ours), behind_ip, 0), UnknownSource),
        ("GRE with IP", changed(encapsulated(Encap::Nvgre, ours), behind_ip + 2, 8), UnknownSource),
        ("an empty datagram", udp_of(ours, 4789, &[]), UnknownSource),
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
            ("GRE behind an option", with_option(encapsulated(Encap::Nvgre, ours)), Overlay),
            ("a later fragment of GRE", changed(encapsulated(Encap::Nvgre, ours), 21, 7), UnknownSource),
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
        (open(kernel_filter(address)), vec![Goes::Overlay]),
        (
            open(Filter::Own(vec![address])),
            vec![Goes::Overlay, Goes::UnknownSource, Goes::Control, Goes::ControlOfAll],
        ),
        (
            open(Filter::Everything),
            vec![Goes::Overlay, Goes::UnknownSource, Goes::Control, Goes::ControlOfAll, Goes::Elsewhere],
        ),
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

#[test]
fn an_uplink_takes_the_frames_of_all_addresses_that_are_ours_alone() {
    if !can_make_namespaces() {
        return;
    }
    let [first, second, third]: [IpAddr; 3] =
        ["192.0.2.1", "192.0.2.2", "2001:db8::2"].map(|text| text.parse().unwrap());
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let filter = Filter::Own(vec![first, second, third]);
    let mut near =
        TestPort::packet_socket(&here, "wire", AfPacketOptions { filter, ..AfPacketOptions::default() });
    let mut sender = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let frames = [first, second, third].map(|addr| encapsulated(Encap::Vxlan, addr));
    let to_another = encapsulated(Encap::Vxlan, "192.0.2.3".parse().unwrap());
    sender.send(&[&[to_another], &frames[..]].concat());
    assert_eq!(near.receive_until(|frame| frame == frames[2]), frames);
}

#[test]
fn a_filter_follows_its_sources() {
    if !can_make_namespaces() {
        return;
    }
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let sources = OverlaySources::default();
    let filter = Filter::Kernel { address, sources: sources.clone() };
    // Sockets of a group, of which the first is closed before the change.
    let options = AfPacketOptions { filter, fanout: Some(77), ..AfPacketOptions::default() };
    drop(TestPort::packet_socket(&here, "wire", options.clone()));
    let mut near = TestPort::packet_socket(&here, "wire", options);
    let mut sender = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let source = |vsid| OverlaySource { vsid, address: ends(address).src };
    let of = |vsid| encapsulated_of(Encap::Vxlan, address, vsid, ends(address).src);
    let frames = [of(1), of(2), of(3)];
    sources.set([source(3)].into()).unwrap();
    sender.send(&frames);
    assert_eq!(near.receive_until(|frame| frame == frames[2]), frames[2..]);
    sources.add(&[source(2)].into()).unwrap();
    sender.send(&frames);
    assert_eq!(near.receive_until(|frame| frame == frames[2]), frames[1..]);
    sources.set([source(1)].into()).unwrap();
    sender.send(&[&frames[1..], &frames[..1]].concat());
    assert_eq!(near.receive_until(|frame| frame == frames[0]), frames[..1]);
    let many = (0..=OverlaySources::MAX as u32).map(source).collect();
    assert!(sources.set(many).unwrap_err().to_string().contains("131073"));
}

#[test]
fn a_filter_of_many_sources_fits_the_limit_of_older_kernels() {
    if !can_make_namespaces() {
        return;
    }
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let (here, there) = (Namespace::new(), Namespace::new());
    // The default before Linux 6.7. Kernels before 6.8 have it for all namespaces together, and not in this one.
    let set = "if [ -e /proc/sys/net/core/optmem_max ]; then echo 20480 >/proc/sys/net/core/optmem_max; fi";
    here.within(move || drop(std::process::Command::new("sh").args(["-c", set]).status()));
    here.connect("wire", &there, "far");
    let sources = OverlaySources::default();
    let filter = Filter::Kernel { address, sources: sources.clone() };
    let mut near =
        TestPort::packet_socket(&here, "wire", AfPacketOptions { filter, ..AfPacketOptions::default() });
    let many = |first: u32| -> BTreeSet<OverlaySource> {
        let other = |n: u32| IpAddr::from(u32::to_be_bytes(0x0a00_0000 + 7 * n));
        let pairs = (0..500).map(|n| OverlaySource { vsid: first + 3 * n * n, address: other(n * n) });
        pairs.chain([source(address)]).collect()
    };
    // The kernel has the old filter and the new one for a moment.
    for first in [10_000, 20_001, 30_002] {
        sources.set(many(first)).unwrap();
    }
    let mut sender = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let frames = [encapsulated(Encap::Vxlan, address)];
    sender.send(&frames);
    assert_eq!(near.receive_until(|frame| frame == frames[0]), frames);
}
