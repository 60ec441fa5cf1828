//! The checks' messages, as users see them, and the figure 8 deployment.

use culvert_api::{Bundle, ErrorBody};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Fabric;

const FIGURE8: &str = include_str!("../../tests/figure8.json");

/// Figure 8 with `change` made to it; one line per problem with its remedy.
fn problems(change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(FIGURE8).unwrap();
    change(&mut value);
    let parsed = Bundle::from_value(&value).expect("well formed");
    match Fabric::check(&parsed.bundle) {
        Ok(_) => "no problem".into(),
        Err(problems) => {
            let lines = problems.list.iter().map(|p| {
                let body = ErrorBody::from(p);
                format!("[{}] {}\n    -> {}", body.code, body.message, body.remedy)
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

fn figure8() -> Fabric {
    let parsed = Bundle::parse(FIGURE8).unwrap();
    assert_eq!(parsed.warnings, []);
    let checked = Fabric::check(&parsed.bundle).unwrap();
    assert_eq!(checked.warnings, []);
    checked.fabric
}

#[test]
fn figure_8_holds_together() {
    let fabric = figure8();
    assert_eq!(fabric.networks.len(), 2);
    assert_eq!(fabric.networks[0].subnets[0].vsid.get(), 5001);
    assert_eq!(fabric.hosts[1].uplinks[0].pa.to_string(), "192.168.2.20");
    assert_eq!(fabric.hosts[0].uplinks[1].mac.0, [2, 0, 192, 168, 1, 11]);
    assert_eq!(fabric.interfaces.len(), 4);
    assert!(fabric.networks.iter().all(|n| n.subnets[0].acl == Some(0)));
    assert!(fabric.interfaces.iter().all(|i| i.acl.is_none()));
    assert_eq!(fabric.vm_mtu(), 1500);
}

#[test]
fn the_example_for_users_is_the_tested_one() {
    assert_eq!(include_str!("../../../../docs/examples/figure8.json"), FIGURE8);
}

#[test]
fn the_wider_example_holds_together() {
    let parsed = Bundle::parse(include_str!("../../../../docs/examples/routed.json")).unwrap();
    assert_eq!(parsed.warnings, []);
    let fabric = Fabric::check(&parsed.bundle).unwrap().fabric;
    assert_eq!((fabric.networks[0].subnets.len(), fabric.interfaces.len()), (2, 7));
}

#[test]
fn vsids() {
    insta::assert_snapshot!(problems(|b| {
        b["virtualNetworks"][0]["properties"]["subnets"][0]["properties"]["virtualSubnetId"] = json!(4095);
    }));
    insta::assert_snapshot!(problems(|b| {
        b["virtualNetworks"][1]["properties"]["subnets"][0]["properties"]["virtualSubnetId"] = json!("5001");
    }));
    insta::assert_snapshot!(problems(|b| {
        let rdid = b["virtualNetworks"][0]["properties"]["routingDomainId"].clone();
        b["virtualNetworks"][1]["properties"]["routingDomainId"] = rdid;
    }));
    insta::assert_snapshot!(problems(|b| {
        b["virtualNetworks"][1]["properties"]["subnets"][0]["properties"]["virtualSubnetId"] = json!(5001);
        b["virtualNetworks"][0]["properties"]["subnets"][0]["properties"]["virtualSubnetId"] = json!(null);
        b["virtualNetworkManager"][0]["properties"]["virtualSubnetIdRange"] =
            json!({"start": 6000, "end": 7000});
    }));
}

#[test]
fn a_subnet_without_a_vsid_gets_a_free_one_that_others_do_not_move() {
    let vsids = |range: (u64, u64), more: &[&str]| {
        let mut value: Value = serde_json::from_str(FIGURE8).unwrap();
        value["virtualNetworkManager"][0]["properties"]["virtualSubnetIdRange"] =
            json!({"start": range.0, "end": range.1});
        let subnets = value["virtualNetworks"][0]["properties"]["subnets"].as_array_mut().unwrap();
        subnets[0]["properties"]["virtualSubnetId"] = json!(null);
        for (n, id) in more.iter().enumerate() {
            let properties = json!({"addressPrefix": format!("10.1.{}.0/24", n + 2)});
            subnets.insert(0, json!({"resourceId": id, "properties": properties}));
        }
        let bundle = Bundle::from_value(&value).unwrap().bundle;
        let fabric = Fabric::check(&bundle).map_err(|p| p.list[0].to_string())?.fabric;
        Ok(fabric.networks[0].subnets.iter().map(|s| (s.name.clone(), s.vsid.get())).collect())
    };
    let all = |range, more: &[&str]| -> Result<std::collections::BTreeMap<String, u32>, String> {
        vsids(range, more)
    };
    let alone = all((4096, 16_777_214), &[]).unwrap();
    let beside = all((4096, 16_777_214), &["a", "b"]).unwrap();
    assert_eq!(alone["front"], beside["front"]);
    let values: std::collections::BTreeSet<&u32> = beside.values().collect();
    assert_eq!((values.len(), values.contains(&6001)), (3, false));
    // Room for one beside the named 6001.
    assert_eq!(all((6001, 6002), &[]).unwrap()["front"], 6002);
    assert_eq!(
        all((6001, 6002), &["a"]).unwrap_err(),
        "/virtualNetworks/contoso/subnets/front: has no virtualSubnetId, and 6001 to 6002 are used up"
    );
}

#[test]
fn prefixes() {
    let subnet = |id: &str, prefix: &str, vsid: u32| json!({"resourceId": id, "properties": {"addressPrefix": prefix, "virtualSubnetId": vsid}});
    insta::assert_snapshot!(problems(|b| {
        let subnets = b["virtualNetworks"][0]["properties"]["subnets"].as_array_mut().unwrap();
        subnets.push(subnet("overlap", "10.1.1.128/25", 5002));
        subnets.push(subnet("outside", "10.2.0.0/24", 5003));
        subnets.push(subnet("bits", "10.1.2.1/24", 5004));
        subnets.push(subnet("form", "10.1.3.0", 5005));
        subnets.push(subnet("long", "10.1.4.0/33", 5006));
        subnets.push(subnet("small", "10.1.5.0/31", 5007));
        subnets.push(subnet("missing", "", 5008));
    }));
}

#[test]
fn addresses() {
    let address = |b: &mut Value, n: usize, text: &str| {
        b["networkInterfaces"][n]["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"] =
            json!(text);
    };
    insta::assert_snapshot!(problems(|b| {
        address(b, 0, "10.1.1.1");
        address(b, 1, "10.1.1.0");
        address(b, 2, "10.1.1.255");
        address(b, 3, "10.1.2.12");
    }));
    insta::assert_snapshot!(problems(|b| {
        address(b, 1, "10.1.1.11");
        address(b, 3, "10.1.1");
        b["networkInterfaces"][1]["properties"]["privateMacAddress"] = json!("00-1d-d8-07-00-11");
        b["networkInterfaces"][3]["properties"]["privateMacAddress"] = json!("01:1d:d8:07:00:11");
        b["networkInterfaces"][2]["properties"]["privateMacAddress"] = json!("02-43-56-00-00-01");
    }));
}

#[test]
fn references() {
    insta::assert_snapshot!(problems(|b| {
        b["networkInterfaces"][0]["properties"]["server"] = json!("/servers/host3");
        b["networkInterfaces"][1]["properties"]["ipConfigurations"][0]["properties"]["subnet"] =
            json!("/virtualNetworks/contoso/subnets/frnt");
        b["networkInterfaces"][2]["properties"]["accessControlList"] =
            json!("/accessControlLists/none-like-this");
        b["networkInterfaces"][3]["properties"]["ipConfigurations"][0]["properties"]["subnet"] = json!(null);
        b["virtualNetworks"][0]["properties"]["logicalNetwork"] = json!("/servers/host1");
        b["networkInterfaces"][1]["properties"]["uplink"] = json!(2);
    }));
}

#[test]
fn a_mistake_is_reported_once() {
    // Everything that refers to the broken subnet stays silent.
    insta::assert_snapshot!(problems(|b| {
        b["virtualNetworks"][0]["properties"]["subnets"][0]["properties"]["addressPrefix"] =
            json!("10.1.1.0/240");
    }));
}

#[test]
fn provider_addresses() {
    let uplink = |b: &mut Value, host: usize, n: usize, name: &str, value: Value| {
        b["servers"][host]["properties"]["networkInterfaces"][n]["properties"][name] = value;
    };
    insta::assert_snapshot!(problems(|b| {
        uplink(b, 0, 0, "providerAddress", json!("192.168.2.30"));
        uplink(b, 0, 1, "providerAddress", json!("172.16.0.1"));
        uplink(b, 0, 1, "logicalSubnet", json!(null));
        uplink(b, 1, 0, "providerAddress", json!("192.168.2.1"));
        uplink(b, 1, 1, "uplink", json!(2));
    }));
    insta::assert_snapshot!(problems(|b| {
        uplink(b, 0, 1, "providerAddress", json!("192.168.1.10"));
        uplink(b, 1, 1, "uplink", json!(0));
        let third = b["servers"][0]["properties"]["networkInterfaces"][0].clone();
        let mut server = b["servers"][0].clone();
        server["resourceId"] = json!("host3");
        let uplinks = server["properties"]["networkInterfaces"].as_array_mut().unwrap();
        uplinks.push(third);
        uplinks[2]["resourceId"] = json!("uplink2");
        b["servers"].as_array_mut().unwrap().push(server);
    }));
}

#[test]
fn pools() {
    let with_pool = |first: &str, last: &str| {
        let (first, last) = (first.to_owned(), last.to_owned());
        move |b: &mut Value| {
            let pool = &mut b["logicalNetworks"][0]["properties"]["subnets"][0]["properties"]["ipPools"][0]["properties"];
            *pool = json!({"startIpAddress": first, "endIpAddress": last});
            for n in 0..2 {
                b["servers"][0]["properties"]["networkInterfaces"][n]["properties"]["providerAddress"] =
                    json!("");
            }
        }
    };
    insta::assert_snapshot!(problems(with_pool("192.168.1.1", "192.168.1.2")));
    insta::assert_snapshot!(problems(with_pool("192.168.1.9", "192.168.2.2")));
    let mut value: Value = serde_json::from_str(FIGURE8).unwrap();
    with_pool("192.168.1.0", "192.168.1.20")(&mut value);
    let fabric = Fabric::check(&Bundle::from_value(&value).unwrap().bundle).unwrap().fabric;
    let pas: Vec<String> = fabric.hosts[0].uplinks.iter().map(|u| u.pa.to_string()).collect();
    assert_eq!(pas, ["192.168.1.2", "192.168.1.3"], "not the network's address nor the gateway's");
}

#[test]
fn provider_network() {
    insta::assert_snapshot!(problems(|b| {
        let subnets = b["logicalNetworks"][0]["properties"]["subnets"].as_array_mut().unwrap();
        subnets[0]["properties"]["mtu"] = json!(1300);
        subnets[0]["properties"]["vlanID"] = json!("4095");
        subnets[0]["properties"]["defaultGateways"] = json!("192.168.3.1");
        subnets[1]["properties"]["mtu"] = json!(65535);
    }));
    insta::assert_snapshot!(problems(|b| {
        b["logicalNetworks"][0]["properties"]["networkVirtualizationEnabled"] = json!("false");
        b["servers"][1]["properties"]["networkInterfaces"] = json!([]);
    }));
}

#[test]
fn rules() {
    let rule = |id: &str, properties: Value| json!({"resourceId": id, "properties": properties});
    insta::assert_snapshot!(problems(|b| {
        let rules = b["accessControlLists"][0]["properties"]["aclRules"].as_array_mut().unwrap();
        let good = rules[0]["properties"].clone();
        let mut with = |id: &str, changes: &[(&str, Value)]| {
            let mut properties = good.clone();
            for (name, value) in changes {
                properties[*name] = value.clone();
            }
            rules.push(rule(id, properties));
        };
        with("same-priority", &[]);
        with(
            "bad-ports",
            &[
                ("priority", json!(101)),
                ("destinationPortRange", json!("90-80")),
                ("sourcePortRange", json!("http")),
            ],
        );
        with("icmp-ports", &[("priority", json!(102)), ("protocol", json!("ICMP"))]);
        with(
            "protocol",
            &[("priority", json!(103)), ("protocol", json!("256")), ("destinationPortRange", json!("*"))],
        );
        with("prefix", &[("priority", json!(104)), ("sourceAddressPrefix", json!("10.0.0.1/8"))]);
        with(
            "families",
            &[
                ("priority", json!(105)),
                ("sourceAddressPrefix", json!("10.0.0.0/8")),
                ("destinationAddressPrefix", json!("fd00::/8")),
            ],
        );
        with("priority", &[("priority", json!(0))]);
        with("empty", &[("priority", json!(null)), ("action", json!(null)), ("type", json!(null))]);
    }));
}

#[test]
fn an_interface_is_in_one_subnet() {
    insta::assert_snapshot!(problems(|b| {
        let ip = json!({"resourceId": "ip2", "properties": {"privateIPAddress": "10.1.1.50", "subnet": "/virtualNetworks/fabrikam/subnets/front"}});
        b["networkInterfaces"][0]["properties"]["ipConfigurations"].as_array_mut().unwrap().push(ip);
    }));
}

#[test]
fn networks_without_a_guid_get_the_same_one_every_time() {
    let rdids = || {
        let mut value: Value = serde_json::from_str(FIGURE8).unwrap();
        for n in 0..2 {
            value["virtualNetworks"][n]["properties"]["routingDomainId"] = json!(null);
        }
        let fabric = Fabric::check(&Bundle::from_value(&value).unwrap().bundle).unwrap().fabric;
        (fabric.networks[0].rdid, fabric.networks[1].rdid)
    };
    assert_eq!(rdids(), rdids());
    assert_ne!(rdids().0, rdids().1);
}

proptest! {
    #[test]
    fn any_text_is_answered(text in ".{0,40}") {
        let _ = problems(|b| {
            b["networkInterfaces"][0]["properties"]["server"] = json!(text);
            b["virtualNetworks"][0]["properties"]["subnets"][0]["properties"]["addressPrefix"] = json!(text);
            b["accessControlLists"][0]["properties"]["aclRules"][0]["properties"]["destinationPortRange"] = json!(text);
        });
    }
}
