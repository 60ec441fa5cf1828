//! A policy as a user sends it: read, checked, made into the snapshot of a host.

use std::sync::Arc;

use culvert_api::Bundle;
use culvert_flow::HashSecret;
use culvert_model::{Fabric, Indices, Site, host_config};

use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "bundle", run, seeds };

fn seeds() -> Vec<Vec<u8>> {
    let examples = [
        include_str!("../../../docs/examples/figure8.json"),
        include_str!("../../../docs/examples/pair.json"),
        include_str!("../../../docs/examples/routed.json"),
    ];
    examples.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(parsed) = Bundle::parse(text) else { return };
    // What we write, we read as the same.
    let written = serde_json::to_string(&parsed.bundle).expect("a bundle is JSON");
    let again = Bundle::parse(&written).expect("our own form is right");
    assert_eq!((&again.bundle, again.warnings.len()), (&parsed.bundle, 0), "{written}");
    let Ok(checked) = Fabric::check(&parsed.bundle) else { return };
    let fabric = Arc::new(checked.fabric);
    let mut indices = Indices::default();
    for host in &fabric.hosts {
        let site = Site { host: host.name.clone(), entropy: HashSecret([7; 9]), vfs: 64, vmqs: 16 };
        let Ok(config) = host_config(Arc::clone(&fabric), &site, &mut indices) else { continue };
        // The same policy again changes no number.
        let before = indices.clone();
        let same = host_config(Arc::clone(&fabric), &site, &mut indices).expect("it was possible before");
        assert_eq!((indices == before, same.vports.len()), (true, config.vports.len()));
    }
}
