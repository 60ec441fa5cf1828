//! What the kernel answers to the overlay's packets, with and without a guard.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use culvert_netlink::{Guard, OverlaySource};
use culvert_packet::{Encap, OuterSpec, craft};
use culvert_ports::{AfPacket, AfPacketOptions, Filter, OverlaySources};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, send, socket_with};

use crate::frames::built;
use crate::namespace::{Namespace, TIMEOUT, can_make_namespaces, wait_until};
use crate::test_port::TestPort;
use crate::watch::{ip, mac, network};

/// Set for the process that only holds a guard.
const HOLDER: &str = "CULVERT_TEST_HOLDS_A_GUARD";
/// A port without a socket.
const CLOSED: u16 = 4790;

/// Kinds of packets that the kernel answers with an ICMP error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Refused {
    Vxlan,
    Gre,
    /// A datagram to [`CLOSED`].
    Closed,
}

/// A host that sends to the provider address.
struct Sender {
    port: TestPort<AfPacket>,
    ends: craft::Ends,
}

impl Sender {
    fn new(here: &Namespace, there: &Namespace, src: &str, dst: &str) -> Self {
        // Each error counts.
        here.run("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
        let (src_mac, dst_mac) = (mac(there, "far"), mac(here, "eth0"));
        let ends = craft::Ends { src_mac, dst_mac, src: ip(src), dst: ip(dst) };
        Sender { port: TestPort::packet_socket(there, "far", AfPacketOptions::default()), ends }
    }

    fn overlay(&self, encap: Encap) -> Vec<u8> {
        self.overlay_of(encap, 5001)
    }

    fn overlay_of(&self, encap: Encap, vsid: u32) -> Vec<u8> {
        let craft::Ends { src_mac, dst_mac, src, dst } = self.ends;
        if src.is_ipv6() && encap == Encap::Vxlan {
            // With a checksum: the kernel drops datagrams of IPv6 without one, and does not refuse them.
            let [_, a, b, c] = vsid.to_be_bytes();
            let payload = [&[8, 0, 0, 0, a, b, c, 0][..], &[0xab; 60]].concat();
            return built(|out| craft::udp(out, &self.ends, 5002, 4789, &payload).unwrap());
        }
        let template = OuterSpec { encap, src_mac, dst_mac, vlan: None, src, dst }.template().unwrap();
        built(|out| craft::encapsulated(out, &template, vsid, 9, &[0xab; 60]).unwrap())
    }

    fn udp(&self, port: u16) -> Vec<u8> {
        built(|out| craft::udp(out, &self.ends, 5002, port, b"any").unwrap())
    }

    /// Sends VXLAN, GRE and, last, a datagram that the kernel always refuses. Returns which of them it has refused.
    fn refused(&mut self) -> Vec<Refused> {
        self.refused_of(5001)
    }

    /// The same with packets of another virtual subnet.
    fn refused_of(&mut self, vsid: u32) -> Vec<Refused> {
        // Answers to another sender.
        self.port.receive();
        let overlay = |encap| self.overlay_of(encap, vsid);
        let frames = [overlay(Encap::Vxlan), overlay(Encap::Nvgre), self.udp(CLOSED)];
        assert_eq!(self.port.send(&frames).packets, 3);
        let got = self.port.receive_until(|frame| refused(frame) == Some(Refused::Closed));
        let mut refused: Vec<Refused> = got.iter().filter_map(|frame| refused(frame)).collect();
        refused.sort();
        refused
    }

    /// Waits until the kernel answers an echo.
    fn expect_pong(&mut self, number: u16) {
        let ping = built(|out| craft::ping(out, &self.ends, 7, number, &[1; 20]).unwrap());
        let pong = built(|out| craft::pong(out, &self.ends.reversed(), 7, number, &[1; 20]).unwrap());
        self.port.send(&[ping]);
        // The kernel chooses TTL and identification, and so the checksum, of IPv4.
        let message = if self.ends.src.is_ipv4() { 34 } else { 54 };
        self.port.receive_until(|frame| frame.get(message..) == Some(&pong[message..]));
    }
}

/// Which packet an ICMP error refuses.
fn refused(frame: &[u8]) -> Option<Refused> {
    let (protocol, port) = match frame.get(12..14)? {
        // Destination unreachable.
        [8, 0] if (frame.get(23)?, frame.get(34)?) == (&1, &3) => (*frame.get(51)?, frame.get(64..66)?),
        // Destination unreachable, or a parameter problem: an unknown next header.
        [0x86, 0xdd] if frame.get(20)? == &58 && [1, 4].contains(frame.get(54)?) => {
            (*frame.get(68)?, frame.get(104..106)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(port.try_into().ok()?);
    match (protocol, port) {
        (47, _) => Some(Refused::Gre),
        (17, 4789) => Some(Refused::Vxlan),
        (17, CLOSED) => Some(Refused::Closed),
        _ => None,
    }
}

fn guard(here: &Namespace, addresses: &'static [&'static str]) -> std::io::Result<Guard> {
    here.within(|| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|addr| ip(addr)).collect();
        Guard::install("eth0", &addresses, &sources(5001))
    })
}

/// The senders of [`ENDS`], in a virtual subnet.
fn sources(vsid: u32) -> BTreeSet<OverlaySource> {
    ENDS.iter().map(|(src, _)| OverlaySource { vsid, address: ip(src) }).collect()
}

const BOTH: &[&str; 2] = &["192.0.2.1", "2001:db8::1"];
const ENDS: [(&str, &str); 2] = [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")];
const ALL: [Refused; 3] = [Refused::Vxlan, Refused::Gre, Refused::Closed];

#[test]
fn the_kernel_refuses_the_overlay_unless_guarded() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let senders = || ENDS.map(|(src, dst)| Sender::new(&here, &there, src, dst));
    for mut sender in senders() {
        assert_eq!(sender.refused(), ALL, "without a guard");
    }
    let held = guard(&here, BOTH).unwrap();
    for mut sender in senders() {
        assert_eq!(sender.refused(), [Refused::Closed]);
    }
    drop(held);
    for mut sender in senders() {
        assert_eq!(sender.refused(), ALL, "when the guard is gone");
    }
}

#[test]
fn guarded_packets_reach_the_port() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let _held = guard(&here, BOTH).unwrap();
    for (src, dst) in ENDS {
        let mut sender = Sender::new(&here, &there, src, dst);
        let known = OverlaySources::default();
        known.set(sources(5001)).unwrap();
        let filter = Filter::Kernel { address: ip(dst), sources: known };
        let options = AfPacketOptions { filter, promiscuous: false, ..AfPacketOptions::default() };
        let mut port = TestPort::packet_socket(&here, "eth0", options);
        assert_eq!(sender.refused(), [Refused::Closed]);
        let expected = [sender.overlay(Encap::Vxlan), sender.overlay(Encap::Nvgre)];
        let got = port.receive_until(|frame| frame == expected[1]);
        assert_eq!(got, expected);
    }
}

#[test]
fn other_traffic_reaches_the_kernel() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    here.run("ip addr add 192.0.2.9/24 dev eth0");
    let _held = guard(&here, BOTH).unwrap();
    for (src, dst) in ENDS {
        let socket = here.within(move || UdpSocket::bind((ip(dst), 5003)).unwrap());
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut sender = Sender::new(&here, &there, src, dst);
        sender.expect_pong(3);
        let datagram = sender.udp(5003);
        sender.port.send(&[datagram]);
        let mut bytes = [0; 8];
        assert_eq!(socket.recv(&mut bytes).unwrap(), 3);
        assert_eq!(&bytes[..3], b"any");
    }
    let mut sender = Sender::new(&here, &there, "192.0.2.2", "192.0.2.9");
    assert_eq!(sender.refused(), ALL, "an address that is no provider address");
}

#[test]
fn overlay_packets_of_unknown_sources_are_the_kernels() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let mut held = guard(&here, BOTH).unwrap();
    for (src, dst) in ENDS {
        let mut sender = Sender::new(&here, &there, src, dst);
        assert_eq!(sender.refused_of(5001), [Refused::Closed]);
        assert_eq!(sender.refused_of(5002), ALL, "another virtual subnet");
        sender.ends.src = other(src);
        there.run(&format!("ip addr add {} dev far", other(src)));
        assert_eq!(sender.refused_of(5001), ALL, "another host");
    }
    // More than one message holds.
    let mut many: BTreeSet<OverlaySource> =
        (0..5000).flat_map(|n| sources(10_000 + n)).chain(sources(5002)).collect();
    held.set_sources(&many).unwrap();
    for (src, dst) in ENDS {
        let mut sender = Sender::new(&here, &there, src, dst);
        for vsid in [5002, 10_000, 14_999] {
            assert_eq!(sender.refused_of(vsid), [Refused::Closed], "{vsid}");
        }
        assert_eq!(sender.refused_of(5001), ALL, "no longer");
    }
    many.retain(|source| source.vsid == 10_007);
    held.set_sources(&many).unwrap();
    let mut sender = Sender::new(&here, &there, ENDS[0].0, ENDS[0].1);
    assert_eq!(sender.refused_of(14_999), ALL);
    assert_eq!(sender.refused_of(10_007), [Refused::Closed]);
}

/// The host with the next address.
fn other(addr: &str) -> IpAddr {
    ip(&addr.replace("::2", "::9").replace(".2.2", ".2.8"))
}

#[test]
fn a_guard_stays_while_its_interface_goes_down_and_up() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let _held = guard(&here, BOTH).unwrap();
    here.run("ip link set eth0 down");
    here.run("ip link set eth0 up");
    let mut sender = Sender::new(&here, &there, "192.0.2.2", "192.0.2.1");
    assert_eq!(sender.refused(), [Refused::Closed]);
}

/// Sends nf_tables a request about tables, from a socket that owns none: kind, flags, family and, unless empty, a name.
fn request_tables(kind: u16, flags: u16, family: u8, name: &str) {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER)).unwrap();
    bind(&socket, &SocketAddrNetlink::new(0, 0)).unwrap();
    let message = |kind: u16, flags: u16, family: u8, rest: &[u8]| {
        let words = [16 + rest.len() as u32 + 2, u32::from(kind) | u32::from(flags) << 16, 1, 0];
        [&words.map(u32::to_ne_bytes).concat()[..], &[family, 0], rest].concat()
    };
    // NFTA_TABLE_NAME, padded.
    let mut attribute = Vec::new();
    if !name.is_empty() {
        let len = name.len() as u16 + 5;
        attribute = [&len.to_ne_bytes()[..], &1u16.to_ne_bytes(), name.as_bytes(), &[0]].concat();
        attribute.resize(attribute.len().next_multiple_of(4), 0);
    }
    let request = message(10 << 8 | kind, flags | 5, family, &[&[0, 0], &attribute[..]].concat());
    let batch = [message(16, 1, 0, &[0, 10]), request, message(17, 1, 0, &[0, 10])].concat();
    assert_eq!(send(&socket, &batch, SendFlags::empty()).unwrap(), batch.len());
    let mut answer = [0; 64];
    rustix::net::recv(&socket, &mut answer[..], RecvFlags::DONTWAIT).unwrap();
    assert_eq!(answer[16..20], [0; 4], "the kernel has done it");
}

/// What `nft flush ruleset` does: NFT_MSG_DELTABLE of no name in no family.
fn flush_ruleset() {
    request_tables(2, 0, 0, "");
}

/// Makes a table without an owner, as an operator or another program may leave it.
fn leave_a_table() {
    request_tables(0, 0x400, 5, "culvert-eth0");
}

#[test]
fn a_table_without_an_owner_is_replaced() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    here.within(leave_a_table);
    let mut sender = Sender::new(&here, &there, "192.0.2.2", "192.0.2.1");
    assert_eq!(sender.refused(), ALL);
    let held = guard(&here, BOTH).unwrap();
    assert_eq!(sender.refused(), [Refused::Closed]);
    here.within(flush_ruleset);
    assert_eq!(sender.refused(), [Refused::Closed]);
    drop(held);
    assert_eq!(sender.refused(), ALL);
}

#[test]
fn another_process_can_neither_take_nor_flush_the_table() {
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let held = guard(&here, BOTH).unwrap();
    assert_eq!(guard(&here, BOTH).err().unwrap().kind(), ErrorKind::AddrInUse);
    here.within(flush_ruleset);
    let mut sender = Sender::new(&here, &there, "192.0.2.2", "192.0.2.1");
    assert_eq!(sender.refused(), [Refused::Closed]);
    drop(held);
    drop(guard(&here, &["192.0.2.1"]).unwrap());
    let missing = here.within(|| Guard::install("eth9", &[ip("192.0.2.1")], &sources(5001))).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
}

/// A process that holds a guard.
struct Holder(Child);

impl Holder {
    fn start(here: &Namespace, test: &'static str) -> Self {
        let mut child = here.within(move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", test, "--nocapture"]).env(HOLDER, "1");
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        });
        let output = BufReader::new(child.stdout.take().unwrap());
        let holder = Holder(child);
        // If the process gets no guard, its output ends.
        assert!(output.lines().any(|line| line.unwrap().contains("held")), "the process has a guard");
        holder
    }

    /// In the process itself: holds a guard until it is killed or its parent ends.
    fn hold() {
        let _held = Guard::install("eth0", &BOTH.map(ip), &sources(5001)).unwrap();
        println!("held");
        std::io::stdin().lines().next();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SIGKILL; it may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_process_leaves_nothing() {
    if std::env::var_os(HOLDER).is_some() {
        return Holder::hold();
    }
    if !can_make_namespaces() {
        return;
    }
    let (here, there) = network();
    let mut sender = Sender::new(&here, &there, "192.0.2.2", "192.0.2.1");
    let holder = Holder::start(&here, "guard::a_killed_process_leaves_nothing");
    assert_eq!(sender.refused(), [Refused::Closed]);
    assert_eq!(guard(&here, BOTH).err().unwrap().kind(), ErrorKind::AddrInUse);
    drop(holder);
    wait_until("nothing is left", || sender.refused() == ALL);
    let held = guard(&here, BOTH).unwrap();
    assert_eq!(sender.refused(), [Refused::Closed]);
    drop(held);
    assert_eq!(sender.refused(), ALL);
}
