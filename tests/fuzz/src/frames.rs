//! Frames that seeds are made of: one of each kind that the data path tells apart.

use std::net::IpAddr;

use culvert_packet::{EtherType, MacAddr, OuterSpec, Protocol, arp, craft, icmp, tcp};

/// The ends of a conversation of two VMs.
pub(crate) fn ends(v6: bool) -> craft::Ends {
    let address = |n: u16| -> IpAddr {
        if v6 { [0xfd00, 1, 0, 0, 0, 0, 0, n].into() } else { [10, 1, 1, n as u8].into() }
    };
    craft::Ends {
        src_mac: MacAddr([0, 0x1d, 0xd8, 7, 0, 1]),
        dst_mac: MacAddr([0, 0x1d, 0xd8, 7, 0, 2]),
        src: address(11),
        dst: address(12),
    }
}

/// Frames of a VM.
pub(crate) fn tenant() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut add = |make: &dyn Fn(&mut [u8]) -> Result<usize, culvert_packet::Reason>| {
        let mut out = [0; 512];
        let len = make(&mut out).expect("it fits");
        all.push(out[..len].to_vec());
    };
    for v6 in [false, true] {
        let ends = ends(v6);
        add(&|out| craft::udp(out, &ends, 40_000, 53, b"a query"));
        let header =
            tcp::Header { src_port: 40_000, dst_port: 443, flags: tcp::Flags::SYN, ..tcp::Header::default() };
        add(&|out| craft::tcp(out, &ends, &header, &[7; 200]));
        add(&|out| craft::ping(out, &ends, 7, 1, b"ping"));
        add(&|out| {
            let len = craft::udp(out, &ends, 1, 2, b"tagged")?;
            craft::tag(out, len, 0x6007)
        });
    }
    let v4 = ends(false);
    add(&|out| craft::fragment(out, &v4, Protocol::UDP, 0, true, &[1; 64]));
    add(&|out| craft::fragment(out, &v4, Protocol::UDP, 8, false, &[2; 64]));
    add(&|out| {
        let (sender, target) = ([10, 1, 1, 11].into(), [10, 1, 1, 12].into());
        let operation = arp::Operation::REQUEST;
        let (sender_mac, target_mac) = (v4.src_mac, MacAddr::ZERO);
        craft::arp(out, &arp::Packet { operation, sender_mac, sender, target_mac, target })
    });
    let v6 = ends(true);
    add(&|out| {
        let IpAddr::V6(target) = v6.dst else { return Ok(0) };
        let message = icmp::Neighbour { solicitation: true, flags: 0, target, mac: Some(v6.src_mac) };
        craft::neighbour(out, &v6, &message)
    });
    // Hop-by-hop options and a fragment header.
    let extensions = [44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9, 0, 1, 0, 2, 0, 9, 0, 0, 1];
    add(&|out| craft::ip_packet(out, &v6, Protocol(0), &extensions));
    add(&|out| craft::ethernet(out, v4.dst_mac, v4.src_mac, EtherType(0x88cc), &[1; 46]));
    all
}

/// Outer headers between two hosts.
pub(crate) fn outer(encap: culvert_packet::Encap, v6: bool) -> OuterSpec {
    let address = |n: u8| -> IpAddr {
        if v6 { [0xfd00, 10, 0, 0, 0, 0, 0, n.into()].into() } else { [192, 168, n, 10].into() }
    };
    OuterSpec {
        encap,
        src_mac: MacAddr([2, 0, 0, 0, 0, 0x10]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        vlan: None,
        src: address(1),
        dst: address(2),
    }
}

/// Encapsulated frames from the wire, each with its VSID.
pub(crate) fn wire() -> Vec<Vec<u8>> {
    let inner = tenant();
    let mut all = Vec::new();
    for (n, inner) in inner.iter().enumerate() {
        for encap in [culvert_packet::Encap::Vxlan, culvert_packet::Encap::Nvgre] {
            let template = outer(encap, n % 3 == 2).template().expect("addresses of one family");
            let mut out = [0; 1024];
            let len = craft::encapsulated(&mut out, &template, 5001, 50_001, inner).expect("it fits");
            all.push(out[..len].to_vec());
        }
    }
    all
}
