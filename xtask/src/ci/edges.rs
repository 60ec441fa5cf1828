//! Dependencies point one way: the workspace's crates against the edges that ARCHITECTURE.md allows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::failure::Result;
use crate::workspace::Workspace;

/// Each crate and what it may depend on, together with everything that those may depend on.
pub(super) const ALLOWED: &[(&str, &[&str])] = &[
    ("culvert-packet", &[]),
    ("culvert-flow", &["culvert-packet"]),
    ("culvert-policy", &["culvert-flow"]),
    ("culvert-offload", &["culvert-flow"]),
    ("culvert-virtio", &["culvert-packet"]),
    ("culvert-capture", &[]),
    ("culvert-threads", &[]),
    ("culvert-program", &[]),
    ("culvert-abi", &["culvert-flow"]),
    ("culvert-logic", &["culvert-abi"]),
    ("culvert-image", &["culvert-logic"]),
    ("culvert-soc", &["culvert-abi"]),
    ("culvert-wire", &["culvert-capture", "culvert-packet"]),
    (
        "culvert-device",
        &["culvert-soc", "culvert-wire", "culvert-virtio", "culvert-threads", "culvert-program"],
    ),
    ("culvert-pci", &[]),
    ("culvert-pf", &["culvert-abi", "culvert-offload", "culvert-pci", "culvert-threads"]),
    ("culvert-switch", &["culvert-offload", "culvert-threads"]),
    ("culvert-netlink", &["culvert-packet"]),
    ("culvert-ports", &["culvert-switch", "culvert-netlink", "culvert-virtio"]),
    ("culvert-vmq-bridge", &["culvert-ports"]),
    ("culvert-slowpath", &["culvert-offload", "culvert-policy", "culvert-netlink", "culvert-threads"]),
    ("culvert-api", &["culvert-packet"]),
    ("culvert-model", &["culvert-api", "culvert-policy"]),
    (
        "culvert-agent",
        &["culvert-model", "culvert-slowpath", "culvert-pf", "culvert-vmq-bridge", "culvert-program"],
    ),
    // `culvert replay` runs a host's slow path and switch, without threads and hardware.
    (
        "culvert-cli",
        &[
            "culvert-api",
            "culvert-model",
            "culvert-slowpath",
            "culvert-switch",
            "culvert-capture",
            "culvert-program",
        ],
    ),
    ("culvert-skip", &[]),
    // The guest is a machine of its own: of our code it may use only the access to PCI devices.
    ("culvert-guest", &["culvert-pci"]),
];

/// Crates at the top: they may depend on any crate of [`ALLOWED`], and nothing on them.
pub(super) const TOP: &[&str] =
    &["culvert-lockstep", "culvert-e2e", "culvert-fuzz", "culvert-hostile", "culvert-benches", "xtask"];

/// Exceptions at the top.
pub(super) const EXCEPTIONS: &[(&str, &str)] = &[
    // The data path's target compares its engines.
    ("culvert-fuzz", "culvert-lockstep"),
    // The firmware benchmark fills its memory as the lockstep tests do.
    ("culvert-benches", "culvert-lockstep"),
    // The benchmark with VMs starts the end-to-end tests' VMs.
    ("culvert-benches", "culvert-e2e"),
    // The attack suite starts the end-to-end tests' deployments.
    ("culvert-hostile", "culvert-e2e"),
];

/// Kinds of a dependency that count. Tests inside a crate may reach further (a driver against the device model), but never to
/// the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Linked into the product.
    Normal,
    /// Only for the crate's own tests.
    Dev,
}

/// The workspace's own dependencies: crate, what it depends on, how.
pub(super) type Graph = BTreeMap<String, BTreeSet<(String, Kind)>>;

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let graph = graph(&workspace.metadata);
    let problems = problems(&graph);
    if problems.is_empty() {
        println!(
            "{} crates, {} dependencies between them, all allowed",
            graph.len(),
            graph.values().map(BTreeSet::len).sum::<usize>()
        );
        return Ok(());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    Err(format!(
        "{} dependencies are not allowed; the edges are listed in xtask/src/ci/edges.rs and ARCHITECTURE.md",
        problems.len()
    )
    .into())
}

/// Reads the graph from `cargo metadata`.
pub(super) fn graph(metadata: &Value) -> Graph {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]);
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    let edges = |package: &Value| {
        list(&package["dependencies"])
            .iter()
            .map(|edge| (name(edge), if edge["kind"] == "dev" { Kind::Dev } else { Kind::Normal }))
            .filter(|(to, _)| members.contains(to))
            .collect()
    };
    packages.iter().map(|package| (name(package), edges(package))).collect()
}

/// What is wrong with the graph, one sentence each.
pub(super) fn problems(graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for (from, edges) in graph {
        let top = TOP.contains(&from.as_str());
        let allowed = reachable(from);
        if !top && allowed.is_none() {
            problems.push(format!(
                "{from} is not in the list of allowed edges: add it there and to ARCHITECTURE.md"
            ));
            continue;
        }
        let allowed = allowed.unwrap_or_default();
        for (to, kind) in edges {
            if EXCEPTIONS.contains(&(from.as_str(), to.as_str())) {
                continue;
            }
            if TOP.contains(&to.as_str()) {
                problems
                    .push(format!("{from} depends on {to}: nothing may depend on tests, benches or xtask"));
            } else if !top && *kind == Kind::Normal && !allowed.contains(to.as_str()) {
                problems.push(format!("{from} depends on {to}: this edge is not allowed"));
            }
        }
    }
    problems
}

/// All crates below `from`; none if it is not listed.
fn reachable(from: &str) -> Option<BTreeSet<&'static str>> {
    let direct = |name: &str| ALLOWED.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
    let mut open = direct(from)?.to_vec();
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if seen.insert(name) {
            open.extend(direct(name).unwrap_or_default());
        }
    }
    Some(seen)
}
