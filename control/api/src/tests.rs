//! Lenient reading, canonical writing.

use serde_json::json;

use crate::lenient::{Findings, canonical, canonical_mac};
use crate::{
    Bundle, Collection, Error, Offload, Protocol, Resource, ResourcePath, RuleAction, Shape, VirtualNetwork,
};

#[test]
fn names_and_words_in_any_case_numbers_as_text() {
    let parsed = Bundle::from_value(&json!({
        "VIRTUALNETWORKS": [{
            "ResourceID": "contoso",
            "Properties": {
                "NetworkVirtualizationProtocol": "nvgre",
                "subnets": {"resourceId": "sql", "properties": {"AddressPrefix": "10.1.1.0/24", "virtualSubnetID": "5001"}}
            }
        }],
        "networkInterfaces": [{
            "resourceId": "vm",
            "properties": {
                "privateMacAddress": "00:1d:d8:07:00:01", "offload": "VMQ", "server": "/servers/host1",
                "ipConfigurations": [{"resourceId": "ip", "properties": {"privateIpAddress": "10.1.1.11"}}]
            }
        }]
    }))
    .unwrap();
    assert_eq!(parsed.warnings, []);
    let network = parsed.bundle.virtual_networks[0].spec();
    assert_eq!(network.network_virtualization_protocol, Some(Protocol::Nvgre));
    assert_eq!(network.subnets[0].spec().virtual_subnet_id, Some(5001));
    let interface = parsed.bundle.network_interfaces[0].spec();
    assert_eq!(interface.private_mac_address, "001DD8070001");
    assert_eq!(interface.offload, Some(Offload::Vmq));
    assert_eq!(interface.server.as_ref().unwrap().resource_ref, "/servers/host1");
    assert_eq!(interface.ip_configurations[0].spec().private_ip_address, "10.1.1.11");
}

#[test]
fn canonical_form_reads_back_equal() {
    let network = Resource::new(
        "contoso",
        VirtualNetwork {
            routing_domain_id: Some("{11111111-2222-3333-4444-000000005001}".into()),
            ..VirtualNetwork::default()
        },
    );
    let written = serde_json::to_value(&network).unwrap();
    let mut findings = Findings::default();
    let read = canonical(&written, Collection::VirtualNetworks.shape(), "/x", &mut findings);
    assert_eq!(findings, Findings::default());
    assert_eq!(read, written);
    assert!(written["properties"]["subnets"].is_array());
}

#[test]
fn every_problem_of_form_is_reported_at_once() {
    let errors = Bundle::from_value(&json!({
        "virtualNetwork": [],
        "servers": [{"properties": {}}, {"resourceId": "a/b"}, {"resourceId": "h"}, {"resourceId": "H"}],
        "accessControlLists": [{"resourceId": "acl", "properties": {"aclRules": [
            {"resourceId": "r", "properties": {"action": "Maybe", "priority": "high", "Priority": 1}}
        ]}}]
    }))
    .unwrap_err();
    let codes: Vec<_> = errors.iter().map(Error::code).collect();
    for code in ["UnknownCollection", "MissingId", "BadId", "DuplicateId", "WrongType", "DuplicateProperty"] {
        assert!(codes.contains(&code), "{code} not in {errors:?}");
    }
    assert!(errors.iter().any(|e| e.to_string().contains("\"Maybe\", not one of Allow, Deny")), "{errors:?}");
}

#[test]
fn unknown_properties_are_warnings() {
    let parsed =
        Bundle::from_value(&json!({"servers": [{"resourceId": "h", "properties": {"colour": "red"}}]}))
            .unwrap();
    assert_eq!(parsed.warnings.len(), 1);
    assert!(parsed.warnings[0].message.contains("colour"));
    assert_eq!(parsed.warnings[0].target, "/servers/h.properties");
}

#[test]
fn a_list_of_resources_with_references_is_a_bundle_too() {
    let parsed = Bundle::from_value(&json!([
        {"resourceRef": "/accessControlLists/web", "properties": {"aclRules": [
            {"resourceId": "http", "properties": {"action": "allow", "destinationPortRange": 80}}]}},
        {"resourceRef": "/networking/v1/virtualNetworkManager/configuration", "properties": {}}
    ]))
    .unwrap();
    let rule = parsed.bundle.access_control_lists[0].spec().acl_rules[0].spec().clone();
    assert_eq!((rule.action, rule.destination_port_range.as_str()), (Some(RuleAction::Allow), "80"));
    assert_eq!(parsed.bundle.virtual_network_manager[0].resource_id, "configuration");
}

#[test]
fn mac_notations() {
    for text in ["001DD8070001", "00-1D-D8-07-00-01", "00:1d:d8:07:00:01", "001d.d807.0001"] {
        assert_eq!(canonical_mac(text).as_deref(), Some("001DD8070001"));
    }
    for text in ["", "001DD807000", "001DD80700011", "zz1DD8070001"] {
        assert_eq!(canonical_mac(text), None);
    }
}

#[test]
fn paths() {
    let path = ResourcePath::parse("/networking/v1/VirtualNetworks/contoso/Subnets/sql").unwrap();
    assert_eq!(path.to_string(), "/virtualNetworks/contoso/subnets/sql");
    assert_eq!(ResourcePath::parse("/logicalNetworks/pa/subnets/a/ipPools/p").unwrap().children.len(), 2);
    for bad in
        ["", "/", "/virtualNetworks", "/virtualNetworks/x/y/z", "/servers/..", "/servers/a/b", "/nets/x"]
    {
        assert!(ResourcePath::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn deep_documents_do_not_exhaust_the_stack() {
    let mut value = json!("x");
    for _ in 0..120 {
        value = json!([value]);
    }
    let errors = Bundle::from_value(
        &json!({"servers": [{"resourceId": "h", "properties": {"networkInterfaces": value}}]}),
    );
    assert!(errors.is_err());
}

#[test]
fn shapes_know_every_property() {
    let Shape::Object(envelope) = Collection::NetworkInterfaces.shape() else { panic!("an object") };
    let Shape::Object(properties) = &envelope["properties"].1 else { panic!("an object") };
    assert_eq!(properties["privatemacaddress"].0, "privateMacAddress");
    assert_eq!(properties["privatemacaddress"].1, Shape::Text { mac: true, words: Vec::new() });
    assert!(properties.contains_key("provisioningstate"));
    let Shape::List(ip) = &properties["ipconfigurations"].1 else { panic!("a list") };
    let Shape::Object(ip) = ip.as_ref() else { panic!("an object") };
    let Shape::Object(ip) = &ip["properties"].1 else { panic!("an object") };
    assert_eq!(ip["privateipaddress"].0, "privateIPAddress");
}
