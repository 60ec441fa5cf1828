//! Figure 8 as host 1 sees it: Contoso and Fabrikam with the same addresses, and more of Contoso for routing.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use culvert_flow::tables::Member;
use culvert_flow::{FlowKey, HashSecret, Port, key};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr, Rdid, VportId, parse, tcp};
use culvert_policy::acl::{Acl, AclSet, Action, PortRange, Rule};
use culvert_policy::snapshot::{
    GroupSpec, Location, Mapping, Network, Peer, Snapshot, Subnet, Target, Vport, cell_of,
};
use culvert_policy::{Connections, Decision, Forward, Input, Packet, Timeouts, TraceStep, decide};

pub(crate) const CONTOSO: Rdid = Rdid([1; 16]);
pub(crate) const FABRIKAM: Rdid = Rdid([2; 16]);
pub(crate) const ROUTER: MacAddr = MacAddr([0, 0x1d, 0xd8, 0xff, 0, 1]);
/// Contoso: SQL here (vport 0), Web on host 2, App here in subnet 5002 (vport 2), Db in 5002 on host 2.
pub(crate) const SQL: VportId = VportId(0);
pub(crate) const FABRIKAM_SQL: VportId = VportId(1);
pub(crate) const APP: VportId = VportId(2);

pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr([0, 0x1d, 0xd8, 7, 0, n])
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn rule(name: &str, action: Action, port: u16) -> Rule {
    Rule {
        name: name.to_owned(),
        priority: 100,
        action,
        protocol: Some(6),
        source: Vec::new(),
        destination: Vec::new(),
        source_ports: PortRange::ANY,
        destination_ports: PortRange { first: port, last: port },
    }
}

pub(crate) fn deny_all() -> Acl {
    Acl::new(
        "closed".to_owned(),
        vec![Rule { protocol: None, destination_ports: PortRange::ANY, ..rule("deny-all", Action::Deny, 0) }],
    )
}

fn vport(name: &str, n: u8, addr: &str, vsid: u32, rdid: Rdid, vf: u16) -> Vport {
    let telnet = Acl::new("no-telnet".to_owned(), vec![rule("deny-telnet", Action::Deny, 23)]);
    let acls = Arc::new(AclSet { acls: vec![telnet] });
    Vport {
        name: name.to_owned(),
        mac: mac(n),
        addresses: vec![ip(addr)],
        vsid,
        rdid,
        vlan: None,
        target: Target::Vf(vf),
        up: true,
        acls_in: Arc::clone(&acls),
        acls_out: acls,
        generation: 10 + u32::from(n),
        local_pa: 0,
        mtu: 1500,
        quota: None,
    }
}

pub(crate) fn figure8() -> Snapshot {
    let mut s = Snapshot::empty(ROUTER, HashSecret([5; 9]));
    for rdid in [CONTOSO, FABRIKAM] {
        s.networks.insert(rdid, Network { encap: Encap::Vxlan, distributed_router: true });
    }
    for (vsid, rdid, prefix, gateway) in [
        (5001, CONTOSO, "10.1.1.0/24", "10.1.1.1"),
        (5002, CONTOSO, "10.1.2.0/24", "10.1.2.1"),
        (6001, FABRIKAM, "10.1.1.0/24", "10.1.1.1"),
    ] {
        let prefixes = vec![prefix.parse().expect("a prefix")];
        let gateways = vec![ip(gateway)];
        let subnet = Subnet { vsid, rdid, prefixes, gateways, group_out: Some(1), group_in: Some(2) };
        s.subnets.insert(vsid, subnet);
    }
    let member = |id: VportId| Member::Port(Port::Vport(id));
    s.groups.insert(1, GroupSpec { index: 1, members: vec![Member::Tunnel(7), member(SQL)] });
    s.groups.insert(2, GroupSpec { index: 2, members: vec![member(SQL)] });
    s.vports.insert(SQL, vport("contoso-sql", 11, "10.1.1.11", 5001, CONTOSO, 0));
    s.vports.insert(FABRIKAM_SQL, vport("fabrikam-sql", 21, "10.1.1.11", 6001, FABRIKAM, 1));
    s.vports.insert(APP, vport("contoso-app", 13, "10.1.2.13", 5002, CONTOSO, 2));
    let remote = Location::Remote { peer: 2, tunnels: [7, 8] };
    for (rdid, addr, n, vsid, location) in [
        (CONTOSO, "10.1.1.11", 11, 5001, Location::Local(SQL)),
        (CONTOSO, "10.1.1.12", 12, 5001, remote),
        (CONTOSO, "10.1.2.13", 13, 5002, Location::Local(APP)),
        (CONTOSO, "10.1.2.14", 14, 5002, remote),
        (FABRIKAM, "10.1.1.11", 21, 6001, Location::Local(FABRIKAM_SQL)),
        (FABRIKAM, "10.1.1.12", 22, 6001, remote),
    ] {
        let ca = ip(addr);
        let (generation, cell) = (u32::from(n) + 100, cell_of(rdid, ca));
        s.mappings.insert(Mapping { rdid, ca, mac: mac(n), vsid, location, generation, cell });
    }
    s.peers.insert(2, Peer { pas: vec![ip("192.168.2.20")], vsids: BTreeSet::from([5001, 5002, 6001]) });
    s.peers.insert(3, Peer { pas: vec![ip("192.168.3.30")], vsids: BTreeSet::from([6001]) });
    s
}

pub(crate) fn connections() -> Connections {
    Connections::new(1000, 500, Timeouts::default(), HashSecret([3; 9]))
}

/// Ends of a frame from `src` to `dst`, each MAC number and address.
pub(crate) fn ends(src: (u8, &str), dst: (u8, &str)) -> Ends {
    Ends { src_mac: mac(src.0), dst_mac: mac(dst.0), src: ip(src.1), dst: ip(dst.1) }
}

pub(crate) fn udp(ends: &Ends, ports: (u16, u16)) -> Vec<u8> {
    built(|out| craft::udp(out, ends, ports.0, ports.1, b"data"))
}

pub(crate) fn syn(ends: &Ends, ports: (u16, u16), flags: tcp::Flags) -> Vec<u8> {
    let header = tcp::Header { src_port: ports.0, dst_port: ports.1, flags, ..tcp::Header::default() };
    built(|out| craft::tcp(out, ends, &header, &[]))
}

pub(crate) fn built(build: impl FnOnce(&mut [u8]) -> Result<usize, culvert_packet::Reason>) -> Vec<u8> {
    let mut frame = vec![0; 2000];
    let len = build(&mut frame).expect("it fits");
    frame.truncate(len);
    frame
}

/// The key that the data path would look up.
pub(crate) fn key_of(input: Input, frame: &[u8]) -> FlowKey {
    let headers = parse(frame).expect("a well-formed frame");
    match input {
        Input::Vport(id) => key::outbound(id, frame, &headers),
        Input::Wire { peer, encap, vsid } => key::inbound(encap, vsid, peer, frame, &headers),
    }
}

/// Decides, applies the effects, and returns the decision with its trace.
pub(crate) fn ask(
    s: &Snapshot,
    c: &mut Connections,
    input: Input,
    frame: &[u8],
    now: u32,
) -> (Decision, Vec<TraceStep>) {
    let headers = parse(frame).expect("a well-formed frame");
    let packet = Packet { input, frame, headers, key: key_of(input, frame) };
    let mut trace = Vec::new();
    let (decision, effects) = decide(s, c, &packet, now, &mut trace);
    c.apply(&effects, now);
    (decision, trace)
}

#[track_caller]
pub(crate) fn forward(decision: Decision) -> Forward {
    match decision {
        Decision::Forward(forward) => *forward,
        other => panic!("not forwarded: {other:?}"),
    }
}

pub(crate) fn wire(peer: u16, vsid: u32) -> Input {
    Input::Wire { peer, encap: Encap::Vxlan, vsid }
}
