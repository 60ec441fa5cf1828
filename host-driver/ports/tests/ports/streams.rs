//! Two kernels exchange streams and datagrams over a TAP and an uplink port, with and without encapsulation.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use culvert_netlink::OverlaySource;
use culvert_packet::{Encap, MacAddr, OuterSpec};
use culvert_ports::{AfPacket, AfPacketOptions, AfXdp, AfXdpOptions, Filter, OverlaySources, Tap};
use culvert_switch::SwitchPort;

use crate::namespace::{Namespace, TIMEOUT, can_use_taps, can_use_xdp, is_unprivileged};
use crate::port_bridge::{BridgeCounters, Encapsulation, PortBridge};

const BYTES: usize = 16 << 20;
/// Datagrams of one large send.
const DATAGRAMS: i32 = 20;

/// Bytes in which a lost, doubled or moved segment shows.
fn pattern() -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..BYTES).map(|_| next()).collect()
}

/// One TCP connection, on which all of the pattern goes one way.
fn stream(listener: &Namespace, address: &str, client: &Namespace, upload: bool) {
    let address = address.to_owned();
    let bound = listener.within(move || TcpListener::bind(&*address).unwrap());
    let address = bound.local_addr().unwrap();
    let talk = |mut stream: TcpStream, write: bool| {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        if write {
            stream.write_all(&pattern()).unwrap();
            return true;
        }
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got == pattern()
    };
    let server = listener.spawn(move || talk(bound.accept().unwrap().0, !upload));
    let client = client.spawn(move || talk(TcpStream::connect_timeout(&address, TIMEOUT).unwrap(), upload));
    assert!(client.wait() && server.wait(), "what arrives is what was sent");
}

/// Datagrams of many lengths, there and back.
fn datagrams(listener: &Namespace, address: &str, client: &Namespace) {
    let address = address.to_owned();
    let local = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let server = listener.within(move || UdpSocket::bind(&*address).unwrap());
    let (address, lengths) = (server.local_addr().unwrap(), (1..1300).step_by(37));
    let count = lengths.clone().count();
    let echo = listener.spawn(move || {
        server.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut buffer = [0; 2000];
        for _ in 0..count {
            let (len, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..len], from).unwrap();
        }
    });
    client.within(move || {
        let socket = UdpSocket::bind(local).unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        for len in lengths {
            let sent = vec![len as u8; len];
            socket.send(&sent).unwrap();
            let mut got = [0; 2000];
            assert_eq!(socket.recv(&mut got).unwrap(), len);
            assert_eq!(got[..len], sent);
        }
    });
    echo.wait();
}

/// Has the kernel leave large datagrams of a socket unsegmented, to be cut into datagrams of `len` bytes (`UDP_SEGMENT`).
pub(crate) fn set_udp_segment(socket: &UdpSocket, len: i32) {
    let (fd, size) = (socket.as_raw_fd(), std::ptr::from_ref(&len).cast());
    // SAFETY: the option's value is an int, which lives during the call.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_SEGMENT, size, 4) };
    assert_eq!(result, 0);
}

/// Datagrams that the sender's kernel leaves unsegmented (`UDP_SEGMENT`).
fn large_datagrams(from: &Namespace, to: &Namespace, address: &str) {
    let (address, len, count) = (address.to_owned(), 1000, DATAGRAMS);
    let local = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = to.within(move || UdpSocket::bind(&*address).unwrap());
    let address = socket.local_addr().unwrap();
    from.within(move || {
        let socket = UdpSocket::bind(local).unwrap();
        set_udp_segment(&socket, len);
        let all: Vec<u8> = (0..len * count).map(|n: i32| (n / len) as u8).collect();
        assert_eq!(socket.send_to(&all, address).unwrap(), all.len());
    });
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    for n in 0..count {
        let mut got = [0; 2000];
        assert_eq!(socket.recv(&mut got).unwrap(), len as usize);
        assert_eq!(got[..len as usize], vec![n as u8; len as usize], "datagram {n}");
    }
}

/// Ping, datagrams and streams of both families, both ways.
pub(crate) fn talk(here: &Namespace, there: &Namespace) {
    here.run("ping -c 3 -i 0.01 -W 10 -s 1000 10.0.0.2");
    there.run("ping -c 3 -i 0.01 -W 10 fd00::1");
    for address in ["10.0.0.2:0", "[fd00::2]:0"] {
        datagrams(there, address, here);
        stream(there, address, here, true);
        stream(there, address, here, false);
    }
    large_datagrams(there, here, "10.0.0.1:0");
    large_datagrams(there, here, "[fd00::1]:0");
    assert_eq!((here.checksum_errors(), there.checksum_errors()), (0, 0));
}

/// Checks that nothing was lost, and that large packets pass whole. `whole`: also those that the wire's port receives.
pub(crate) fn check_counters([out, back]: [BridgeCounters; 2], whole: bool) {
    for counters in [out, back] {
        assert!(counters.sent.packets > 100 && (counters.rx_drops == 0 || is_unprivileged()), "{counters:?}");
        assert_eq!(
            (counters.sent.down, counters.sent.refused, counters.sent.full),
            (0, 0, 0),
            "{counters:?}"
        );
    }
    assert!(out.large > 100, "large packets pass: {out:?}");
    assert_eq!(back.large > 100, whole, "{back:?}");
    assert!(out.sent.packets > 10 * out.large, "the uplink got segments: {out:?}");
    // Except the large datagrams, which are always segmented: two of them.
    let cut = 2 * (DATAGRAMS as u64 - 1);
    assert!(back.sent.packets <= back.received + cut, "the VM got large packets: {back:?}");
}

#[test]
fn two_kernels_talk_over_a_tap_and_a_packet_socket() {
    if !can_use_taps() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let tap = here.within(move || Tap::open("vm", 1400, Some(mac)).unwrap());
    assert!(here.run("ip link show vm").contains("link/ether 02:00:00:00:00:01"));
    assert!(here.run("ip link show vm").contains("mtu 1400"));
    let wire = here.within(|| AfPacket::open("wire", &AfPacketOptions::default()).unwrap());
    here.run("ip addr add 10.0.0.1/24 dev vm");
    here.run("ip addr add fd00::1/64 dev vm");
    there.run("ip addr add 10.0.0.2/24 dev far");
    there.run("ip addr add fd00::2/64 dev far");
    let bridge = PortBridge::new(tap, wire, Encapsulation::None);
    talk(&here, &there);
    check_counters(bridge.end(), true);
}

fn by_packet_socket(filter: Filter) -> std::io::Result<AfPacket> {
    AfPacket::open("wire", &AfPacketOptions { filter, promiscuous: false, ..AfPacketOptions::default() })
}

fn by_xdp(filter: Filter) -> std::io::Result<AfXdp> {
    AfXdp::open("wire", &AfXdpOptions { filter, promiscuous: false, ..AfXdpOptions::default() })
}

fn overlay<P: SwitchPort + 'static>(checksums: &str, whole: bool, open: fn(Filter) -> std::io::Result<P>) {
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let (ours, theirs) = (Ipv4Addr::new(192, 168, 9, 1), Ipv4Addr::new(192, 168, 9, 2));
    here.run(&format!("ip addr add {ours}/24 dev wire"));
    there.run(&format!("ip addr add {theirs}/24 dev far"));
    there.run(&format!(
        "ip link add overlay type vxlan id 5001 dstport 4789 local {theirs} remote {ours} {checksums}"
    ));
    there.run("ip link set overlay up");
    let tap = here.within(|| Tap::open("vm", 1450, None).unwrap());
    let sources = OverlaySources::default();
    sources.set([OverlaySource { vsid: 5001, address: theirs.into() }].into()).unwrap();
    let filter = Filter::Kernel { address: ours.into(), sources };
    let wire = here.within(move || open(filter).unwrap());
    here.run("ip addr add 10.0.0.1/24 dev vm");
    here.run("ip addr add fd00::1/64 dev vm");
    there.run("ip addr add 10.0.0.2/24 dev overlay");
    there.run("ip addr add fd00::2/64 dev overlay");
    let links = there.run("ip -o link show far");
    let dst_mac: MacAddr = links.split("link/ether ").nth(1).unwrap()[..17].parse().unwrap();
    let spec = OuterSpec {
        encap: Encap::Vxlan,
        src_mac: MacAddr([2, 0, 0, 0, 0, 9]),
        dst_mac,
        vlan: None,
        src: ours.into(),
        dst: theirs.into(),
    };
    let encapsulation = Encapsulation::Overlay { template: Box::new(spec.template().unwrap()), vsid: 5001 };
    let bridge = PortBridge::new(tap, wire, encapsulation);
    talk(&here, &there);
    check_counters(bridge.end(), whole);
}

#[test]
fn a_vm_talks_to_the_kernels_vxlan_device() {
    if can_use_taps() {
        overlay("noudpcsum", true, by_packet_socket);
    }
}

#[test]
fn a_vm_talks_to_the_kernels_vxlan_device_which_uses_outer_checksums() {
    if can_use_taps() {
        overlay("udpcsum", true, by_packet_socket);
    }
}

#[test]
fn a_vm_talks_to_the_kernels_vxlan_device_past_our_kernel() {
    if can_use_xdp() && can_use_taps() {
        overlay("noudpcsum", false, by_xdp);
        overlay("udpcsum", false, by_xdp);
    }
}
