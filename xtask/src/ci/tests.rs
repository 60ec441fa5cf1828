//! What the checks of edges and sources find.

use serde_json::json;

use super::{edges, sources};

fn metadata(edges: &[(&str, &str, Option<&str>)]) -> serde_json::Value {
    let mut names: Vec<&str> = edges.iter().flat_map(|(from, to, _)| [*from, *to]).collect();
    names.sort_unstable();
    names.dedup();
    let packages: Vec<_> = names
        .iter()
        .map(|name| {
            let dependencies: Vec<_> = edges
                .iter()
                .filter(|(from, ..)| from == name)
                .map(|(_, to, kind)| json!({"name": to, "kind": kind}))
                .collect();
            json!({"name": name, "dependencies": dependencies})
        })
        .collect();
    json!({ "packages": packages })
}

fn judged(list: &[(&str, &str, Option<&str>)]) -> Vec<String> {
    edges::problems(&edges::graph(&metadata(list)))
}

#[test]
fn a_crate_may_use_everything_below_an_allowed_edge() {
    assert!(
        judged(&[("culvert-agent", "culvert-packet", None), ("culvert-pf", "culvert-flow", None)]).is_empty()
    );
}

#[test]
fn upward_edges_are_named() {
    let problems = judged(&[("culvert-flow", "culvert-abi", None)]);
    assert_eq!(problems, ["culvert-flow depends on culvert-abi: this edge is not allowed"]);
}

#[test]
fn driver_and_device_meet_only_in_tests() {
    assert_eq!(judged(&[("culvert-pf", "culvert-device", None)]).len(), 1);
    assert!(judged(&[("culvert-pf", "culvert-device", Some("dev"))]).is_empty());
}

#[test]
fn nothing_depends_on_tests() {
    assert_eq!(judged(&[("culvert-pf", "culvert-e2e", Some("dev"))]).len(), 1);
    assert_eq!(judged(&[("xtask", "culvert-e2e", None)]).len(), 1);
    assert!(judged(&[("xtask", "culvert-abi", None)]).is_empty());
}

#[test]
fn an_unlisted_crate_is_a_problem() {
    assert_eq!(judged(&[("culvert-extra", "culvert-packet", None)]).len(), 1);
}

#[test]
fn absolute_paths_are_found_with_their_line() {
    let private = format!("/{}/someone/x", "home");
    let text = format!("fine: /usr/bin/x and a/{}/b\nlet f = \"{private}\";\n", "home");
    assert_eq!(sources::absolute_paths(&text).collect::<Vec<_>>(), [(2, private.as_str())]);
}

#[test]
fn unsafe_code_is_told_from_talk_about_it() {
    assert!(sources::uses_unsafe("let x = unsafe { y() };"));
    assert!(!sources::uses_unsafe("// unsafe { y() }"));
    assert!(!sources::uses_unsafe("#![forbid(unsafe_code)]"));
}

#[test]
fn the_picture_of_the_flow_record_has_its_fields_in_order() {
    let code = syn::parse_file(include_str!("../../../dataplane/flow/src/record.rs")).expect("Rust");
    let fields = |name: &str| {
        let found = code.items.iter().find_map(|item| match item {
            syn::Item::Struct(item) if item.ident == name => Some(&item.fields),
            _ => None,
        });
        let fields = found.expect("a struct of the record").iter();
        fields.map(|field| field.ident.as_ref().expect("a name").to_string()).collect::<Vec<_>>()
    };
    let expected = ["FlowKey", "FlowHot", "FlowCold"].map(fields).concat();
    let picture = include_str!("../../../docs/pictures/flow-record.svg");
    let label = |line: &str| {
        let rest = line.strip_prefix("<text ")?.split_once("class=\"t")?.1;
        Some(rest.split_once('>')?.1.split_once('<')?.0.to_owned())
    };
    assert_eq!(picture.lines().filter_map(label).collect::<Vec<_>>(), expected);
}
