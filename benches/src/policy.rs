//! A policy of the control plane for a switch in this process.

use std::sync::Arc;
use std::time::Duration;

use culvert_api::Bundle;
use culvert_e2e::wait::poll;
use culvert_model::{Fabric, HostConfig, Indices, Site, host_config};
use culvert_slowpath::{Handle, NextHopState};
use serde_json::Value;

use crate::work;

/// The example that the benchmarks' policies are made from.
pub const EXAMPLE: &str = include_str!("../../docs/examples/pair.json");
/// Limit for the answer of next hops.
const LIMIT: Duration = Duration::from_secs(10);

/// The configuration of `host1` in a bundle of resources.
///
/// # Errors
/// The bundle is not valid.
pub fn config_of(documents: &Value) -> Result<HostConfig, String> {
    let bundle = Bundle::from_value(documents).map_err(|e| format!("{e:?}"))?.bundle;
    let fabric = Fabric::check(&bundle).map_err(|e| format!("{e:?}"))?.fabric;
    let site = Site { host: "host1".to_owned(), entropy: work::secret(), vfs: 0, vmqs: 0 };
    host_config(Arc::new(fabric), &site, &mut Indices::default()).map_err(|e| format!("{e:?}"))
}

/// Waits until all next hops are resolved.
///
/// # Errors
/// They are not within the limit, or the slow path has stopped.
pub fn wait_for_next_hops(handle: &Handle) -> Result<(), String> {
    let mut hops = Vec::new();
    let resolved = poll(LIMIT, Duration::from_millis(10), || {
        hops = handle.status().map_err(|e| e.to_string())?.next_hops;
        let all = hops.iter().all(|(_, state, _)| matches!(state, NextHopState::Resolved(_)));
        Ok::<_, String>(!hops.is_empty() && all)
    })?;
    if resolved { Ok(()) } else { Err(format!("the next hop does not answer: {hops:?}")) }
}
