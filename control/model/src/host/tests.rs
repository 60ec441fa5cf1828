//! What each host of the examples must know, and which numbers change with the policy.

use std::sync::Arc;

use culvert_api::Bundle;
use culvert_flow::HashSecret;
use culvert_flow::tables::Member;
use culvert_packet::{Encap, VportId};
use culvert_policy::acl::{Matched, Tuple};
use culvert_policy::snapshot::{Location, Snapshot, Target, Vport};
use serde_json::{Value, json};

use super::{HostConfig, Site, host_config};
use crate::{Fabric, Indices};

const ROUTED: &str = include_str!("../../../../docs/examples/routed.json");

fn value() -> Value {
    serde_json::from_str(ROUTED).unwrap()
}

fn site(host: &str) -> Site {
    Site { host: host.to_owned(), entropy: HashSecret([7; 9]), vfs: 64, vmqs: 16 }
}

fn try_derive(value: &Value, site: &Site, indices: &mut Indices) -> Result<HostConfig, String> {
    let fabric = Fabric::check(&Bundle::from_value(value).unwrap().bundle).unwrap().fabric;
    host_config(Arc::new(fabric), site, indices).map_err(|e| e.to_string())
}

fn derive(value: &Value, host: &str, indices: &mut Indices) -> HostConfig {
    try_derive(value, &site(host), indices).unwrap()
}

fn vport<'s>(snapshot: &'s Snapshot, name: &str) -> (VportId, &'s Vport) {
    snapshot.vports.iter().find(|(_, v)| v.name == name).map(|(id, v)| (*id, v)).unwrap()
}

fn generation(config: &HostConfig, name: &str) -> u32 {
    vport(&config.snapshot, name).1.generation
}

fn mapping_generation(config: &HostConfig, ca: &str) -> u32 {
    config.snapshot.mappings.by_ca(config.fabric.networks[0].rdid, ca.parse().unwrap()).unwrap().generation
}

#[test]
fn a_host_knows_its_tenants() {
    let config = derive(&value(), "host1", &mut Indices::default());
    let s = &config.snapshot;
    assert_eq!((s.vports.len(), s.mappings.len(), s.peers.len(), s.networks.len()), (4, 7, 1, 2));
    let (peer, other) = s.peers.iter().next().unwrap();
    assert_ne!(*peer, s.host);
    assert_eq!(other.vsids.iter().copied().collect::<Vec<_>>(), [5001, 5002, 6001]);
    assert_eq!(other.pas.len(), 2);
    assert_eq!(s.tunnels.len(), 4, "two uplinks here, two there, one encapsulation");
    assert_eq!(s.local_pas[0].gateway, Some("192.168.1.1".parse().unwrap()));

    let web = s.mappings.by_ca(config.fabric.networks[0].rdid, "10.1.1.12".parse().unwrap()).unwrap();
    let Location::Remote { peer: at, tunnels } = web.location else { panic!("on the other host") };
    assert_eq!(at, *peer);
    for (n, local) in ["192.168.1.10", "192.168.1.11"].into_iter().enumerate() {
        let tunnel = s.tunnels[&tunnels[n]];
        assert_eq!(
            (tunnel.local_pa.to_string(), tunnel.remote_pa.to_string()),
            (local.into(), "192.168.2.20".into())
        );
    }
    let back = &s.subnets[&5002];
    assert_eq!(
        back.gateways,
        ["10.1.2.1".parse::<std::net::IpAddr>().unwrap()],
        "routed to, though nobody is here"
    );
    assert_eq!((back.group_in, back.group_out), (None, None));
}

#[test]
fn broadcasts_go_once_to_each_host() {
    let config = derive(&value(), "host1", &mut Indices::default());
    let s = &config.snapshot;
    let front = &s.subnets[&5001];
    let out = &s.groups[&front.group_out.unwrap()].members;
    let tunnels = |m: &[Member]| m.iter().filter(|m| matches!(m, Member::Tunnel(_))).count();
    assert_eq!((out.len(), tunnels(out)), (4, 1), "three vports here, one copy on the wire");
    let inside = &s.groups[&front.group_in.unwrap()].members;
    assert_eq!((inside.len(), tunnels(inside)), (3, 0), "what came from the wire does not go back to it");
}

#[test]
fn nothing_of_tenants_that_are_elsewhere() {
    let mut value = value();
    for interface in value["networkInterfaces"].as_array_mut().unwrap() {
        let contoso = interface["resourceId"].as_str().unwrap().starts_with("contoso");
        interface["properties"]["server"] = json!(if contoso { "/servers/host2" } else { "/servers/host1" });
    }
    let config = derive(&value, "host1", &mut Indices::default());
    let s = &config.snapshot;
    assert!(s.mappings.iter().all(|m| m.rdid == config.fabric.networks[1].rdid));
    assert_eq!((s.networks.len(), s.subnets.len(), s.peers.len(), s.tunnels.len()), (1, 1, 0, 0));
    let unknown = derive(&value, "unknown", &mut Indices::default());
    assert!(
        unknown.host.is_none() && unknown.snapshot.vports.is_empty() && unknown.snapshot.local_pas.is_empty()
    );
}

#[test]
fn without_the_router_a_subnet_is_the_boundary() {
    let mut value = value();
    value["virtualNetworkManager"][0]["properties"]["distributedRouterState"] = json!("Disabled");
    let config = derive(&value, "host1", &mut Indices::default());
    let s = &config.snapshot;
    assert_eq!(s.peers.values().next().unwrap().vsids.iter().copied().collect::<Vec<_>>(), [5001, 6001]);
    assert!(s.mappings.iter().all(|m| m.vsid != 5002) && !s.subnets.contains_key(&5002));
}

#[test]
fn each_network_has_its_encapsulation() {
    let mut value = value();
    value["virtualNetworks"][1]["properties"]["networkVirtualizationProtocol"] = json!("NVGRE");
    let config = derive(&value, "host1", &mut Indices::default());
    let s = &config.snapshot;
    assert_eq!(s.tunnels.len(), 8);
    let fabrikam = config.fabric.networks[1].rdid;
    assert_eq!(s.encap(fabrikam), Encap::Nvgre);
    let web = s.mappings.by_ca(fabrikam, "10.1.1.12".parse().unwrap()).unwrap();
    let Location::Remote { tunnels, .. } = web.location else { panic!("on the other host") };
    assert_eq!(s.tunnels[&tunnels[0]].encap, Encap::Nvgre);
}

#[test]
fn lists_of_interface_and_subnet_both_apply() {
    let mut value = value();
    let rule = json!({"resourceId": "ssh", "properties": {"type": "Inbound", "priority": 5, "protocol": "TCP",
        "destinationPortRange": "22-23", "action": "Allow"}});
    let quiet =
        json!({"resourceId": "quiet", "properties": {"inboundDefaultAction": "Deny", "aclRules": [rule]}});
    value["accessControlLists"].as_array_mut().unwrap().push(quiet);
    value["networkInterfaces"][0]["properties"]["accessControlList"] = json!("/accessControlLists/quiet");
    let config = derive(&value, "host1", &mut Indices::default());
    let (_, sql) = vport(&config.snapshot, "contoso-sql");
    let to = |port| Tuple {
        src: "10.1.1.12".parse().unwrap(),
        dst: "10.1.1.11".parse().unwrap(),
        protocol: 6,
        ports: Some((40000, port)),
    };
    assert!(matches!(sql.acls_in.check(&to(22)), Matched::Allowed(_)));
    assert_eq!(sql.acls_in.check(&to(23)), Matched::Denied { acl: "no-telnet", rule: "deny-telnet" });
    assert_eq!(sql.acls_in.check(&to(80)), Matched::Denied { acl: "quiet", rule: "default" });
    assert!(matches!(sql.acls_out.check(&to(80)), Matched::Allowed(_)));
}

#[test]
fn virtual_functions_first_then_queues() {
    let mut indices = Indices::default();
    let config = derive(&value(), "host1", &mut indices);
    let target = |config: &HostConfig, name| vport(&config.snapshot, name).1.target;
    assert_eq!(target(&config, "contoso-sql"), Target::Vf(0));
    assert_eq!(target(&config, "contoso-monitor"), Target::Vmq(0));
    let small = Site { vfs: 1, ..site("host1") };
    let config = try_derive(&value(), &small, &mut Indices::default()).unwrap();
    let vfs = config.vports.iter().filter(|v| matches!(v.target, Target::Vf(_))).count();
    assert_eq!((vfs, config.vports.len()), (1, 4), "who finds no function gets a queue");
    let none = Site { vfs: 1, vmqs: 1, ..site("host1") };
    let error = try_derive(&value(), &none, &mut Indices::default()).unwrap_err();
    assert_eq!(error, "this host needs more than 1 interfaces without a virtual function");
}

#[test]
fn a_change_moves_the_generations_that_it_touches_and_no_others() {
    let mut indices = Indices::default();
    let before = derive(&value(), "host1", &mut indices);
    let same = derive(&value(), "host1", &mut indices);
    for name in ["contoso-sql", "contoso-app", "fabrikam-sql"] {
        assert_eq!(generation(&before, name), generation(&same, name), "the same policy changes nothing");
    }

    // A new rule for one interface.
    let mut acl = value();
    let quiet = json!({"resourceId": "quiet", "properties": {"inboundDefaultAction": "Deny"}});
    acl["accessControlLists"].as_array_mut().unwrap().push(quiet);
    acl["networkInterfaces"][0]["properties"]["accessControlList"] = json!("/accessControlLists/quiet");
    let ruled = derive(&acl, "host1", &mut indices);
    assert_eq!(generation(&ruled, "contoso-sql"), generation(&before, "contoso-sql") + 1);
    assert_eq!(generation(&ruled, "fabrikam-sql"), generation(&before, "fabrikam-sql"));
    assert_eq!(mapping_generation(&ruled, "10.1.1.12"), mapping_generation(&before, "10.1.1.12"));

    // A virtual machine moves to this host: its mapping changes, its neighbours' do not.
    let mut moved = acl.clone();
    moved["networkInterfaces"][1]["properties"]["server"] = json!("/servers/host1");
    let migrated = derive(&moved, "host1", &mut indices);
    assert_eq!(mapping_generation(&migrated, "10.1.1.12"), mapping_generation(&ruled, "10.1.1.12") + 1);
    assert_eq!(mapping_generation(&migrated, "10.1.1.11"), mapping_generation(&ruled, "10.1.1.11"));
    assert_eq!(generation(&migrated, "contoso-app"), generation(&ruled, "contoso-app"));

    // Another encapsulation re-evaluates every flow of the network.
    moved["virtualNetworks"][0]["properties"]["networkVirtualizationProtocol"] = json!("NVGRE");
    let carried = derive(&moved, "host1", &mut indices);
    assert_eq!(generation(&carried, "contoso-app"), generation(&migrated, "contoso-app") + 1);
    assert_eq!(generation(&carried, "fabrikam-sql"), generation(&migrated, "fabrikam-sql"));

    // All of it outlives the daemon.
    let text = serde_json::to_string(&indices).unwrap();
    let mut restored: Indices = serde_json::from_str(&text).unwrap();
    let again = derive(&moved, "host1", &mut restored);
    assert_eq!(again.vports, carried.vports);
    assert_eq!(generation(&again, "contoso-app"), generation(&carried, "contoso-app"));
}
