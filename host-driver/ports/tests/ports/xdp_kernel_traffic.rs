//! The kernel keeps using an interface and an address from which an XDP program takes the overlay's frames.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use culvert_packet::{Encap, MacAddr, craft};
use culvert_ports::{AfPacketOptions, AfXdpOptions};

use crate::filter::{encapsulated, kernel_filter};
use crate::frames::{ends, is_ours};
use crate::namespace::{Namespace, TIMEOUT, can_use_xdp, wait_until};
use crate::test_port::TestPort;

/// Counts of ICMP "destination unreachable" that the kernel has sent, of IPv4 and IPv6.
fn unreachables(namespace: &Namespace) -> (u64, u64) {
    let read = |file| move || std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
    let v4 = namespace.within(read("snmp"));
    let mut lines = v4.lines().filter(|line| line.starts_with("Icmp:")).map(|line| line.split(' '));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let v4 = names.zip(values).find(|(name, _)| *name == "OutDestUnreachs").unwrap().1;
    let v6 = namespace.within(read("snmp6"));
    let v6 = v6.lines().find(|line| line.starts_with("Icmp6OutDestUnreachs")).unwrap();
    (v4.parse().unwrap(), v6.split_whitespace().last().unwrap().parse().unwrap())
}

/// Exchanges datagrams and a stream with a socket of the kernel's.
fn exchange_with_kernel(here: &Namespace, there: &Namespace, address: &'static str) {
    let (bound, listener) =
        here.within(move || (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap()));
    let (datagrams, stream) = (bound.local_addr().unwrap(), listener.local_addr().unwrap());
    let server = here.spawn(move || {
        bound.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut buffer = [0; 2000];
        let (len, from) = bound.recv_from(&mut buffer).unwrap();
        bound.send_to(&buffer[..len], from).unwrap();
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got.len()
    });
    there.within(move || {
        let local = if datagrams.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.send_to(b"another port", datagrams).unwrap();
        let mut got = [0; 100];
        assert_eq!(socket.recv(&mut got).unwrap(), b"another port".len());
        let mut stream = TcpStream::connect_timeout(&stream, TIMEOUT).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(&[7; 300_000]).unwrap();
    });
    assert_eq!(server.wait(), 300_000);
}

#[test]
fn the_kernel_keeps_other_traffic_and_does_not_answer_the_overlay() {
    if !can_use_xdp() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    for (address, theirs, server) in
        [("192.0.2.1", "192.0.2.2", "192.0.2.1:0"), ("2001:db8:5::1", "2001:db8:5::2", "[2001:db8:5::1]:0")]
    {
        let prefix = if address.contains(':') { 64 } else { 24 };
        here.run(&format!("ip addr add {address}/{prefix} dev wire"));
        there.run(&format!("ip addr add {theirs}/{prefix} dev far"));
        here.run(&format!("ip route add default via {theirs}"));
        let filter = kernel_filter(address.parse().unwrap());
        let options = AfXdpOptions { filter, promiscuous: false, ..AfXdpOptions::default() };
        let mut near = TestPort::xdp(&here, "wire", options);
        // The kernel also resolves addresses: no neighbour is known yet.
        there.run(&format!("ping -c 3 -i 0.01 -W 10 {address}"));
        exchange_with_kernel(&here, &there, server);
        let links = here.run("ip -o link show wire");
        let mac = links.split("link/ether ").nth(1).unwrap()[..17].to_owned();
        let mac: MacAddr = mac.parse().unwrap();
        let before = unreachables(&here);
        let mut far = TestPort::packet_socket(&there, "far", AfPacketOptions::default());
        let frames = [Encap::Vxlan, Encap::Nvgre].map(|encap| {
            let mut frame = encapsulated(encap, address.parse().unwrap());
            frame[..6].copy_from_slice(&mac.0);
            frame
        });
        far.send(&frames);
        let mut got = near.receive_until(|frame| frame == frames[1]);
        got.retain(|frame| frames.contains(frame));
        assert_eq!(got, frames);
        // A frame to a closed port shows that the kernel would have refused the others by now.
        let mut other = vec![0; 200];
        let len =
            craft::udp(&mut other, &ends(address.parse::<IpAddr>().unwrap()), 9, 4790, &[7; 50]).unwrap();
        other.truncate(len);
        other[..6].copy_from_slice(&mac.0);
        far.send(&[other]);
        wait_until("the kernel refuses another port", || unreachables(&here) != before);
        let after = unreachables(&here);
        assert_eq!(after.0 + after.1, before.0 + before.1 + 1);
        assert!(!near.receive().iter().any(|frame| is_ours(frame)));
    }
}
