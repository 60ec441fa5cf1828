//! Documents as clients write them, read to one canonical form or refused.

use serde_json::{Value, json};

use crate::lenient::canonical_mac;
use crate::{
    AnyResource, Bundle, Collection, Error, ErrorBody, Findings, LONGEST_ERROR, MAX_LISTED, Offload,
    Protocol, Resource, ResourcePath, RuleAction, Shape, Unknown, VirtualNetwork, read_resource,
};

/// The demo's policy with these changes, as text.
fn policy(change: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::from_str(include_str!("../../../docs/examples/figure8.json")).unwrap();
    change(&mut value);
    value.to_string()
}

fn lenient(text: &str) -> crate::Parsed {
    Bundle::read(text.as_bytes(), Unknown::Ignored).unwrap()
}

fn messages(findings: &Findings) -> Vec<String> {
    findings.errors.iter().map(|e| format!("{e} -> {}", e.remedy())).collect()
}

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
    let written = serde_json::to_vec(&network).unwrap();
    let path = ResourcePath::top(Collection::VirtualNetworks, "contoso");
    let (AnyResource::VirtualNetworks(read), findings) =
        read_resource(&written, &path, Unknown::Refused).unwrap()
    else {
        panic!("a network")
    };
    assert_eq!(findings, Findings::default());
    assert_eq!(*read, network);
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
    let errors = errors.errors;
    let codes: Vec<_> = errors.iter().map(Error::code).collect();
    for code in ["UnknownCollection", "MissingId", "BadId", "DuplicateId", "WrongType", "DuplicateProperty"] {
        assert!(codes.contains(&code), "{code} not in {errors:?}");
    }
    assert!(errors.iter().any(|e| e.to_string().contains("\"Maybe\", not one of Allow, Deny")), "{errors:?}");
}

#[test]
fn unknown_properties_are_refused_and_the_nearest_name_is_given() {
    let text = policy(|p| {
        let subnet = &mut p["virtualNetworks"][0]["properties"]["subnets"][0]["properties"];
        subnet["accesControlList"] = subnet["accessControlList"].take();
        subnet["routeTable"] = json!({"resourceRef": "/routeTables/r"});
        p["networkInterfaces"][1]["properties"]["serviceInsertion"] = json!(null);
    });
    let mut found = messages(&Bundle::parse(&text).unwrap_err());
    found.rotate_left(1);
    assert_eq!(
        found,
        [
            "/virtualNetworks/contoso.properties.subnets[front].properties has the property \"accesControlList\", \
             which is not known here -> write accessControlList",
            "/virtualNetworks/contoso.properties.subnets[front].properties has the property \"routeTable\", \
             which is not implemented -> remove it, or have it left out with a warning: --lenient, or the header \
             Culvert-Lenient: true",
            "/networkInterfaces/contoso-web.properties has the property \"serviceInsertion\", which is not \
             implemented -> remove it, or have it left out with a warning: --lenient, or the header \
             Culvert-Lenient: true",
        ]
    );
}

#[test]
fn lenient_reading_lists_what_it_left_out_in_the_resource() {
    let text = policy(|p| {
        p["accessControlLists"][0]["properties"]["aclRules"][0]["properties"]["logging"] = json!("Enabled");
        p["virtualNetworks"][0]["properties"]["encryptionEnabled"] = json!(true);
        p["loadBalancers"] = json!([{"resourceId": "x"}]);
    });
    let parsed = lenient(&text);
    let targets: Vec<&str> = parsed.warnings.iter().map(|w| w.target.as_str()).collect();
    assert_eq!(
        targets,
        [
            "/accessControlLists/no-telnet.properties.aclRules[deny-telnet].properties",
            "loadBalancers",
            "/virtualNetworks/contoso.properties"
        ]
    );
    let rule = &parsed.bundle.access_control_lists[0].spec().acl_rules[0];
    assert_eq!(rule.ignored_properties, ["properties.logging"]);
    let network = &parsed.bundle.virtual_networks[0];
    assert_eq!(network.ignored_properties, ["properties.encryptionEnabled"]);
    assert!(parsed.bundle.access_control_lists[0].ignored_properties.is_empty());
    // What is written can be read, and still says what was left out.
    let again = Bundle::parse(&serde_json::to_string(&parsed.bundle).unwrap()).unwrap();
    assert_eq!((again.bundle, again.warnings), (parsed.bundle, Vec::new()));
}

#[test]
fn warnings_are_told_beside_errors() {
    let text = policy(|p| {
        p["servers"][0]["properties"]["colour"] = json!("red");
        p["servers"][1]["properties"]["networkInterfaces"] = json!(7);
    });
    let body = Bundle::read(text.as_bytes(), Unknown::Ignored).unwrap_err().body();
    assert!(body.message.contains("is 7, not an object"), "{body:?}");
    assert!(body.warnings[0].message.contains("colour"), "{body:?}");
}

#[test]
fn a_name_twice_is_refused_at_any_depth() {
    for (text, place) in [
        (r#"{"servers": [], "servers": []}"#, "servers"),
        (r#"{"servers": [], "SERVERS": []}"#, "servers"),
        (r#"{"servers": [{"resourceId": "a", "resourceId": "b"}]}"#, "resourceId"),
        (r#"{"servers": [{"resourceId": "a", "tags": {"x": {"y": 1, "y": 2}}}]}"#, "\"y\""),
        (
            r#"{"servers": [{"resourceId": "a", "properties": {"configurationState": {"s": 1, "s": 2}}}]}"#,
            "\"s\"",
        ),
        (r#"{"$schema": 1, "$schema": 2}"#, "$schema"),
    ] {
        let found = Bundle::parse(text).unwrap_err();
        let twice = |e: &Error| {
            matches!(e, Error::DuplicateProperty { .. })
                && e.to_string().to_lowercase().contains(&place.to_lowercase())
        };
        assert!(found.errors.iter().any(twice), "{text}: {found:?}");
    }
}

#[test]
fn all_slips_of_a_policy_are_told_at_once() {
    let text = policy(|p| {
        for n in 0..4 {
            let interface = &mut p["networkInterfaces"][n]["properties"];
            interface["privateMacAdress"] = interface["privateMacAddress"].take();
        }
        p["accessControlLists"][0]["properties"]["aclRules"][0]["properties"]["action"] = json!("Block");
    });
    let found = messages(&Bundle::parse(&text).unwrap_err());
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found[0].contains("\"Block\", not one of Allow, Deny"), "{found:?}");
    assert!(found[1..].iter().all(|f| f.ends_with("write privateMacAddress")), "{found:?}");
}

#[test]
fn a_byte_order_mark_and_other_bytes() {
    let text = policy(|_| {});
    assert_eq!(Bundle::read(format!("\u{feff}{text}").as_bytes(), Unknown::Refused), Bundle::parse(&text));
    let found = messages(&Bundle::read(b"{\"servers\": \"\xff\"}", Unknown::Refused).unwrap_err());
    assert!(found[0].contains("not UTF-8 at byte 14"), "{found:?}");
}

#[test]
fn answers_of_the_api_are_documents() {
    let parsed = Bundle::parse(&policy(|_| {})).unwrap();
    let mut network = AnyResource::VirtualNetworks(parsed.bundle.virtual_networks[0].clone());
    network.stamp(None, &mut || "guid".to_owned());
    let mut shown = network.json();
    shown["properties"]["configurationState"] =
        json!({"status": "Failure", "detailedInfo": [{"code": 1}], "more": []});
    let one = Bundle::parse(&shown.to_string()).unwrap();
    assert_eq!(one.bundle.virtual_networks, parsed.bundle.virtual_networks[..1]);
    let list = Bundle::parse(&json!({"value": [shown], "nextLink": ""}).to_string()).unwrap();
    assert_eq!(list.bundle.virtual_networks, parsed.bundle.virtual_networks[..1]);
    let wrapped = Bundle::parse(&json!({"virtualNetworks": {"value": [shown]}}).to_string()).unwrap();
    assert_eq!(wrapped.bundle.virtual_networks, parsed.bundle.virtual_networks[..1]);
}

/// Bodies that are nothing but large.
fn hostile() -> Vec<(&'static str, String)> {
    let many = |part: &str, n: usize| vec![part; n].join(",");
    vec![
        ("zeros", format!("[{}]", many("0", 100_000))),
        ("arrays", format!("[{}]", many("[]", 100_000))),
        ("objects", format!("[{}]", many("{}", 100_000))),
        ("zeros as servers", format!("{{\"servers\": [{}]}}", many("0", 100_000))),
        ("zeros as a name", format!("{{\"servers\": [{{\"resourceId\": [{}]}}]}}", many("0", 100_000))),
        ("unknown names", {
            let names: Vec<String> = (0..50_000).map(|n| format!("\"{n}\":0")).collect();
            format!("{{\"servers\": [{{\"resourceId\": \"a\", {}}}]}}", names.join(","))
        }),
        ("unknown collections", {
            let names: Vec<String> = (0..50_000).map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", names.join(","))
        }),
        (
            "long names",
            format!(
                "{{\"servers\": [{{\"{}\": 1, \"resourceId\": \"{}\"}}]}}",
                "\u{1}x".repeat(1_000).escape_default(),
                "y".repeat(100_000)
            ),
        ),
        (
            "texts",
            format!(
                "{{\"virtualNetworks\": [{{\"resourceId\": \"a\", \"properties\": {{\"addressSpace\": {{\"addressPrefixes\": [{}]}}}}}}]}}",
                many("1", 50_000)
            ),
        ),
        ("deep", format!("{{\"servers\": {}", "[".repeat(50_000))),
        ("deep and closed", format!("{{\"servers\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000))),
        ("deep tags", format!("{{\"servers\": [{{\"tags\": {}{}}}]}}", "[".repeat(5_000), "]".repeat(5_000))),
    ]
}

#[test]
fn an_answer_lists_a_hundred_problems_and_counts_the_rest() {
    for (what, text) in hostile() {
        for unknown in [Unknown::Refused, Unknown::Ignored] {
            let Err(findings) = Bundle::read(text.as_bytes(), unknown) else {
                assert_eq!(unknown, Unknown::Ignored, "{what}");
                continue;
            };
            assert!(findings.errors.len() <= MAX_LISTED && findings.warnings.len() <= MAX_LISTED, "{what}");
            let length = serde_json::to_vec(&findings.body().bounded()).unwrap().len();
            assert!(length <= LONGEST_ERROR, "{what}: {length}");
        }
    }
    let zeros = Bundle::parse(&hostile()[0].1).unwrap_err().body();
    assert_eq!((zeros.details.len(), zeros.more), (100, 99_900));
    assert_eq!(zeros.message, "the document has 100000 problems, of which the first 100 are listed");
}

#[test]
fn long_texts_do_not_make_an_answer_long() {
    let detail = |n: usize| ErrorBody::new("A", "\u{1}".repeat(n), &"\u{1}".repeat(n), "\u{1}".repeat(n));
    let body = ErrorBody::many("B", "it", (0..100).map(|_| detail(9_000)).collect(), 3).bounded();
    let length = serde_json::to_vec(&body).unwrap().len();
    assert!(length <= LONGEST_ERROR && !body.details.is_empty(), "{length}");
    assert_eq!(body.details.len() + body.more, 103);
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
