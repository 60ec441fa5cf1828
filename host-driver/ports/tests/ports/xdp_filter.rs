//! Which frames the XDP program redirects, and which it passes to the kernel.

use std::net::IpAddr;

use culvert_packet::Encap;
use culvert_ports::{AfPacketOptions, AfXdpOptions, Filter};
use culvert_switch::SwitchPort;

use crate::filter::{Case, Goes, cases, encapsulated, kernel_filter, source};
use crate::frames::datagram;
use crate::namespace::{Namespace, can_use_xdp};
use crate::test_port::TestPort;

/// The names of the received frames.
fn names(got: &[Vec<u8>], cases: &[&Case]) -> Vec<&'static str> {
    let found = got.iter().filter_map(|frame| cases.iter().find(|case| case.1 == *frame));
    found.map(|case| case.0).collect()
}

fn check_program(generic: bool, address: &str, other: &str, foreign: &str) {
    let [address, other, foreign] = [address, other, foreign].map(|text| text.parse::<IpAddr>().unwrap());
    let (here, there) = (Namespace::new(), Namespace::new());
    if generic {
        here.connect_macvlan("wire", &there, "far");
    } else {
        here.connect("wire", &there, "far");
    }
    let mut sender = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let cases = cases(address, other, foreign);
    let cases: Vec<&Case> = cases.iter().filter(|case| !generic || !case.0.contains("tag")).collect();
    let last = encapsulated(Encap::Vxlan, address);
    let ends = [[&last[..], b"the end"].concat(), datagram(9, 1, 60)];
    let filters = [
        (kernel_filter(address), vec![Goes::Overlay]),
        (Filter::Own(vec![address]), vec![Goes::Overlay, Goes::UnknownSource, Goes::Control]),
        (
            Filter::Everything,
            vec![Goes::Overlay, Goes::UnknownSource, Goes::Control, Goes::ControlOfAll, Goes::Elsewhere],
        ),
    ];
    for (filter, goes) in filters {
        let everything = matches!(filter, Filter::Everything);
        let mut near = TestPort::xdp(&here, "wire", AfXdpOptions { filter, ..AfXdpOptions::default() });
        assert_eq!(near.port.is_generic(), generic);
        // A packet socket receives what the kernel receives.
        let mut kernel = TestPort::packet_socket(&here, "wire", AfPacketOptions::default());
        let mut frames: Vec<Vec<u8>> = cases.iter().map(|case| case.1.clone()).collect();
        frames.extend(ends.clone());
        assert_eq!(sender.send(&frames).packets, frames.len() as u64);
        let ours = near.receive_until(|frame| frame == ends[usize::from(everything)]);
        let theirs =
            if everything { kernel.receive() } else { kernel.receive_until(|frame| frame == ends[1]) };
        for (got, is_ours) in [(ours, true), (theirs, false)] {
            let expected = cases.iter().filter(|case| goes.contains(&case.2) == is_ours);
            let expected: Vec<&str> = expected.map(|case| case.0).collect();
            assert_eq!(names(&got, &cases), expected, "{goes:?}, ours: {is_ours}");
        }
        assert_eq!(near.port.take_rx_drops(), 0);
    }
}

#[test]
fn a_driver_takes_the_overlay_over_ipv4_and_nothing_else() {
    if can_use_xdp() {
        check_program(false, "192.0.2.1", "192.0.2.129", "2001:db8::c000:201");
    }
}

#[test]
fn a_driver_takes_the_overlay_over_ipv6_and_nothing_else() {
    if can_use_xdp() {
        check_program(false, "2001:db8::2", "2001:db8:1::2", "192.0.2.1");
    }
}

#[test]
fn an_interface_without_a_driver_for_xdp_does_the_same() {
    if can_use_xdp() {
        check_program(true, "192.0.2.1", "192.0.2.129", "2001:db8::c000:201");
        check_program(true, "2001:db8::2", "2001:db8:1::2", "192.0.2.1");
    }
}

#[test]
fn a_program_follows_its_sources() {
    if !can_use_xdp() {
        return;
    }
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let Filter::Kernel { sources, .. } = kernel_filter(address) else { unreachable!("it is one") };
    let filter = Filter::Kernel { address, sources: sources.clone() };
    let mut near = TestPort::xdp(&here, "wire", AfXdpOptions { filter, ..AfXdpOptions::default() });
    let mut kernel = TestPort::packet_socket(&here, "wire", AfPacketOptions::default());
    let mut sender = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
    let frames = [encapsulated(Encap::Vxlan, address)];
    sender.send(&frames);
    assert_eq!(near.receive_until(|frame| frame == frames[0]), frames);
    sources.set(Default::default()).unwrap();
    sender.send(&frames);
    kernel.receive_until(|frame| frame == frames[0]);
    sources.add(&[source(address)].into()).unwrap();
    sender.send(&frames);
    assert_eq!(near.receive_until(|frame| frame == frames[0]), frames);
    assert!(!kernel.receive().contains(&frames[0]));
}
