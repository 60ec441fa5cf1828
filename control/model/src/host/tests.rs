//! What each host of the examples must know, and which numbers change with the policy.

use std::sync::Arc;

use culvert_api::Bundle;
use culvert_packet::Encap;
use serde_json::{Value, json};

use super::{HostPart, host_part, mapping_cell};
use crate::{Fabric, Indices};

const ROUTED: &str = include_str!("../../../../docs/examples/routed.json");

fn value() -> Value {
    serde_json::from_str(ROUTED).unwrap()
}

fn derive(value: &Value, host: &str, indices: &mut Indices) -> HostPart {
    let fabric = Fabric::check(&Bundle::from_value(value).unwrap().bundle).unwrap().fabric;
    host_part(Arc::new(fabric), host, indices).unwrap()
}

fn generation(part: &HostPart, name: &str) -> u32 {
    part.vports.iter().find(|v| part.fabric.interfaces[v.interface].name == name).unwrap().generation
}

fn cell(part: &HostPart, ca: &str) -> u32 {
    let index = mapping_cell(part.fabric.networks[0].rdid, ca.parse().unwrap());
    part.cells.iter().find(|(i, _)| *i == index).map_or(0, |(_, v)| *v)
}

#[test]
fn a_host_knows_its_tenants_and_nothing_else() {
    let part = derive(&value(), "host1", &mut Indices::default());
    assert_eq!(part.vports.len(), 4);
    assert_eq!(part.peers.len(), 1);
    let vsids: Vec<u32> = part.peers[0].vsids.iter().map(|v| v.get()).collect();
    assert_eq!(vsids, [5001, 5002, 6001]);
    assert_eq!(part.tunnels.len(), 4, "two uplinks here, two there, one encapsulation");
    let first = &part.tunnels[0];
    assert_eq!(
        (first.local.to_string(), first.remote.to_string()),
        ("192.168.1.10".into(), "192.168.2.20".into())
    );
    assert_eq!(
        first.next_hop,
        Some("192.168.1.1".parse().unwrap()),
        "another provider subnet: by its gateway"
    );
    let front = part.groups.iter().find(|g| g.vsid.get() == 5001).unwrap();
    assert_eq!(
        (front.tunnels.len(), front.vports.len()),
        (1, 3),
        "one copy to the other host, however many VMs"
    );
    assert!(part.groups.iter().all(|g| g.vsid.get() != 5002), "no vport of the subnet here");
    assert_eq!(part.mappings.len(), 7);
    let web = part.mappings.iter().find(|m| m.ca.to_string() == "10.1.1.12").unwrap();
    assert_eq!(web.remote, Some((part.peers[0].index, "192.168.2.20".parse().unwrap())));

    let mut alone = value();
    for n in [1, 2, 3, 4, 5, 6] {
        alone["networkInterfaces"][n]["properties"]["server"] = json!("/servers/host2");
    }
    for interface in alone["networkInterfaces"].as_array_mut().unwrap() {
        if interface["resourceId"].as_str().unwrap().starts_with("contoso") {
            interface["properties"]["server"] = json!("/servers/host2");
        }
    }
    alone["networkInterfaces"][2]["properties"]["server"] = json!("/servers/host1");
    let part = derive(&alone, "host1", &mut Indices::default());
    assert!(part.mappings.iter().all(|m| m.rdid == part.fabric.networks[1].rdid), "nothing of Contoso");
    assert_eq!(part.groups.len(), 1);
    assert!(derive(&alone, "unknown", &mut Indices::default()).mappings.is_empty());
}

#[test]
fn without_the_router_a_subnet_is_the_boundary() {
    let mut value = value();
    value["virtualNetworkManager"][0]["properties"]["distributedRouterState"] = json!("Disabled");
    let part = derive(&value, "host1", &mut Indices::default());
    let vsids: Vec<u32> = part.peers[0].vsids.iter().map(|v| v.get()).collect();
    assert_eq!(vsids, [5001, 6001]);
    assert!(part.mappings.iter().all(|m| m.ca.to_string() != "10.1.2.14"));
}

#[test]
fn nvgre_for_one_network_only() {
    let mut value = value();
    value["virtualNetworks"][1]["properties"]["networkVirtualizationProtocol"] = json!("NVGRE");
    let part = derive(&value, "host1", &mut Indices::default());
    assert_eq!(part.tunnels.len(), 8);
    let group = part.groups.iter().find(|g| g.vsid.get() == 6001).unwrap();
    let tunnel = part.tunnels.iter().find(|t| t.index == group.tunnels[0]).unwrap();
    assert_eq!(tunnel.encap, Encap::Nvgre);
}

#[test]
fn a_change_moves_the_generations_that_it_touches_and_no_others() {
    let mut indices = Indices::default();
    let before = derive(&value(), "host1", &mut indices);
    let same = derive(&value(), "host1", &mut indices);
    assert_eq!(
        (&before.vports, &before.cells),
        (&same.vports, &same.cells),
        "the same policy changes nothing"
    );

    // A new rule for one interface.
    let mut acl = value();
    acl["accessControlLists"]
        .as_array_mut()
        .unwrap()
        .push(json!({"resourceId": "quiet", "properties": {"inboundDefaultAction": "Deny"}}));
    acl["networkInterfaces"][0]["properties"]["accessControlList"] = json!("/accessControlLists/quiet");
    let ruled = derive(&acl, "host1", &mut indices);
    assert_eq!(generation(&ruled, "contoso-sql"), generation(&before, "contoso-sql") + 1);
    assert_eq!(generation(&ruled, "fabrikam-sql"), generation(&before, "fabrikam-sql"));
    assert_eq!(ruled.cells, before.cells);

    // A virtual machine moves to this host: its mapping changes, its neighbours do not.
    let mut moved = acl.clone();
    moved["networkInterfaces"][1]["properties"]["server"] = json!("/servers/host1");
    let migrated = derive(&moved, "host1", &mut indices);
    assert_eq!(cell(&migrated, "10.1.1.12"), cell(&ruled, "10.1.1.12") + 1);
    assert_eq!(cell(&migrated, "10.1.1.11"), cell(&ruled, "10.1.1.11"));
    assert_eq!(generation(&migrated, "contoso-app"), generation(&ruled, "contoso-app"));

    // Another encapsulation re-evaluates every flow of the network.
    moved["virtualNetworks"][0]["properties"]["networkVirtualizationProtocol"] = json!("NVGRE");
    let carried = derive(&moved, "host1", &mut indices);
    assert_eq!(generation(&carried, "contoso-app"), generation(&migrated, "contoso-app") + 1);
    assert_eq!(generation(&carried, "fabrikam-sql"), generation(&migrated, "fabrikam-sql"));

    // All of it outlives the daemon.
    let text = serde_json::to_string(&indices).unwrap();
    let mut restored: Indices = serde_json::from_str(&text).unwrap();
    assert_eq!(derive(&moved, "host1", &mut restored).vports, carried.vports);
}
