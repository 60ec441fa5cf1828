//! What the program on an interface takes, and what it leaves to the kernel.

use std::net::IpAddr;

use culvert_packet::Encap;
use culvert_ports::{AfPacketOptions, AfXdpOptions, Filter};
use culvert_switch::SwitchPort;

use crate::filter::{Case, Goes, cases, encapsulated};
use crate::lan_host::{FdbEntry, datagram};
use crate::namespace::{Namespace, may_begin_with_xdp};

/// The names of those that came.
fn names(got: &[Vec<u8>], cases: &[&Case]) -> Vec<&'static str> {
    let found = got.iter().filter_map(|frame| cases.iter().find(|case| case.1 == *frame));
    found.map(|case| case.0).collect()
}

fn passes(generic: bool, address: &str, other: &str, foreign: &str) {
    let [address, other, foreign] = [address, other, foreign].map(|text| text.parse::<IpAddr>().unwrap());
    let (here, there) = (Namespace::new(), Namespace::new());
    if generic {
        // A macvlan is software: there is no driver that would run the program. It has taken tags out before.
        here.join("port", &there, "far");
        here.run("ip link add link port name wire type macvlan mode passthru");
        here.run("ip link set wire up");
    } else {
        here.join("wire", &there, "far");
    }
    let mut sender = FdbEntry::on(&there, "far", AfPacketOptions::default());
    let cases = cases(address, other, foreign);
    let cases: Vec<&Case> = cases.iter().filter(|case| !generic || !case.0.contains("tag")).collect();
    let last = encapsulated(Encap::Vxlan, address);
    let ends = [[&last[..], b"the end"].concat(), datagram(9, 1, 60)];
    let filters = [
        (Filter::Overlay { address, control: false }, vec![Goes::Overlay]),
        (Filter::Overlay { address, control: true }, vec![Goes::Overlay, Goes::Control]),
        (Filter::Everything, vec![Goes::Overlay, Goes::Control, Goes::ControlOfAll, Goes::Elsewhere]),
    ];
    for (filter, goes) in filters {
        let mut station = FdbEntry::before(&here, "wire", AfXdpOptions { filter, ..AfXdpOptions::default() });
        assert_eq!(station.port.is_generic(), generic);
        // A packet socket gets what the kernel gets.
        let mut kernel = FdbEntry::on(&here, "wire", AfPacketOptions::default());
        let mut frames: Vec<Vec<u8>> = cases.iter().map(|case| case.1.clone()).collect();
        frames.extend(ends.clone());
        assert_eq!(sender.send(&frames).packets, frames.len() as u64);
        let everything = filter == Filter::Everything;
        let ours = station.receive_until(|frame| frame == ends[usize::from(everything)]);
        let theirs =
            if everything { kernel.receive() } else { kernel.receive_until(|frame| frame == ends[1]) };
        for (got, is_ours) in [(ours, true), (theirs, false)] {
            let expected = cases.iter().filter(|case| goes.contains(&case.2) == is_ours);
            let expected: Vec<&str> = expected.map(|case| case.0).collect();
            assert_eq!(names(&got, &cases), expected, "{filter:?}, ours: {is_ours}");
        }
        assert_eq!(station.port.take_rx_drops(), 0);
    }
}

#[test]
fn a_driver_takes_the_overlay_over_ipv4_and_nothing_else() {
    if may_begin_with_xdp() {
        passes(false, "192.0.2.1", "192.0.2.129", "2001:db8::c000:201");
    }
}

#[test]
fn a_driver_takes_the_overlay_over_ipv6_and_nothing_else() {
    if may_begin_with_xdp() {
        passes(false, "2001:db8::2", "2001:db8:1::2", "192.0.2.1");
    }
}

#[test]
fn an_interface_without_a_driver_for_xdp_does_the_same() {
    if may_begin_with_xdp() {
        passes(true, "192.0.2.1", "192.0.2.129", "2001:db8::c000:201");
        passes(true, "2001:db8::2", "2001:db8:1::2", "192.0.2.1");
    }
}
