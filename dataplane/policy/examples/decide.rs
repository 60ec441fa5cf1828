//! Decides on the first packets of three flows, and prints each layer's rule and the decision.
//!
//! `cargo run -p culvert-policy --example decide`

use std::fmt::Write as _;
use std::sync::Arc;

use culvert_flow::{HashSecret, key};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr, Rdid, VportId, parse, tcp};
use culvert_policy::acl::{Acl, AclSet, Action, PortRange, Rule};
use culvert_policy::snapshot::{Location, Mapping, Network, Snapshot, Subnet, Target, Vport, cell_of};
use culvert_policy::{Connections, Decision, Input, Packet, Timeouts, decide};

const TENANT: Rdid = Rdid([1; 16]);
const VSID: u32 = 5001;
const SQL: VportId = VportId(0);
const SQL_MAC: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]);
const WEB_MAC: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]);
const ROUTER_MAC: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0xff, 0x00, 0x01]);

fn main() {
    print!("{}", example());
}

/// The report of the three decisions.
pub(crate) fn example() -> String {
    let snapshot = policy();
    let mut connections = Connections::new(1000, 500, Timeouts::default(), HashSecret([3; 9]));
    let mut report = String::new();
    for (what, source, port) in [
        ("HTTPS to the web server", "10.1.1.11", 443),
        ("telnet, which a rule denies", "10.1.1.11", 23),
        ("a source address that the VM does not have", "10.1.1.99", 443),
    ] {
        let frame = syn(source, port);
        let headers = parse(&frame).expect("a well-formed frame");
        let key = key::outbound(SQL, &frame, &headers);
        let packet = Packet { input: Input::Vport(SQL), frame: &frame, headers, key };

        // `decide` changes nothing: the caller applies the effects, here the new connection.
        let mut trace = Vec::new();
        let (decision, effects) = decide(&snapshot, &connections, &packet, 0, &mut trace);
        connections.apply(&effects, 0);

        let _ = writeln!(report, "{what}");
        for layer in &trace {
            let _ = writeln!(report, "  {:<10} {}: {}", layer.layer.as_str(), layer.rule, layer.action);
        }
        let _ = match decision {
            Decision::Forward(forward) => {
                writeln!(report, "  => forward through tunnel {}", forward.record.hot.tunnel)
            }
            Decision::Reply(_) => writeln!(report, "  => reply"),
            Decision::Drop(reason) => writeln!(report, "  => drop: {}", reason.as_str()),
        };
    }
    let _ = writeln!(report, "{} connection", connections.len());
    report
}

/// One tenant with two VMs: SQL on this host, web behind tunnel 7.
fn policy() -> Snapshot {
    let mut snapshot = Snapshot::empty(ROUTER_MAC, HashSecret([5; 9]));
    snapshot.networks.insert(TENANT, Network { encap: Encap::Vxlan, distributed_router: true });
    let subnet = Subnet {
        vsid: VSID,
        rdid: TENANT,
        prefixes: vec!["10.1.1.0/24".parse().expect("a prefix")],
        gateways: vec![[10, 1, 1, 1].into()],
        group_out: None,
        group_in: None,
    };
    snapshot.subnets.insert(VSID, subnet);
    let acls = Arc::new(AclSet { acls: vec![Acl::new("guests".to_owned(), vec![deny_telnet()])] });
    let vport = Vport {
        name: "sql".to_owned(),
        mac: SQL_MAC,
        addresses: vec![[10, 1, 1, 11].into()],
        vsid: VSID,
        rdid: TENANT,
        vlan: None,
        target: Target::Vf(0),
        up: true,
        acls_in: Arc::clone(&acls),
        acls_out: acls,
        generation: 1,
        local_pa: 0,
        mtu: 1500,
        quota: None,
    };
    snapshot.vports.insert(SQL, vport);
    for (address, mac, location) in [
        ([10, 1, 1, 11], SQL_MAC, Location::Local(SQL)),
        ([10, 1, 1, 12], WEB_MAC, Location::Remote { peer: 2, tunnels: [7, 8] }),
    ] {
        let ca = address.into();
        let cell = cell_of(TENANT, ca);
        snapshot.mappings.insert(Mapping {
            rdid: TENANT,
            ca,
            mac,
            vsid: VSID,
            location,
            generation: 1,
            cell,
        });
    }
    snapshot
}

fn deny_telnet() -> Rule {
    Rule {
        name: "deny-telnet".to_owned(),
        priority: 100,
        action: Action::Deny,
        protocol: Some(6),
        source: Vec::new(),
        destination: Vec::new(),
        source_ports: PortRange::ANY,
        destination_ports: PortRange { first: 23, last: 23 },
    }
}

/// A TCP SYN from the SQL VM to a port of the web VM.
fn syn(source: &str, port: u16) -> Vec<u8> {
    let ends = Ends {
        src_mac: SQL_MAC,
        dst_mac: WEB_MAC,
        src: source.parse().expect("an address"),
        dst: [10, 1, 1, 12].into(),
    };
    let header =
        tcp::Header { src_port: 40_000, dst_port: port, flags: tcp::Flags::SYN, ..tcp::Header::default() };
    let mut frame = vec![0; 128];
    let len = craft::tcp(&mut frame, &ends, &header, &[]).expect("room for the frame");
    frame.truncate(len);
    frame
}
