//! Counters of one host.

use culvert_e2e::deployment::Deployment;
use serde_json::Value;

/// One host.
pub(crate) struct HostReport {
    pub(crate) name: String,
    pub(crate) software: bool,
    /// Frames received at vports and uplinks, and those of them that needed no decision: the firmware or the software switch
    /// forwarded them by the flow table.
    pub(crate) frames: u64,
    pub(crate) finished: u64,
    pub(crate) flows: usize,
    pub(crate) drops: Vec<(String, u64)>,
    pub(crate) vports: Vec<(String, u64, u64)>,
}

impl HostReport {
    /// Reads a host's counters.
    pub(crate) fn read(deployment: &Deployment, host: usize, software: bool) -> Result<Self, String> {
        let counters = deployment.cli(host, &["counters"])?;
        let drops = deployment.cli(host, &["drops"])?;
        let flows = deployment.cli(host, &["flows"])?;
        let frames = sum(&counters["vports"], "inPackets") + sum(&counters["uplinks"], "inPackets");
        let entries = drops["drops"].as_array().cloned().unwrap_or_default();
        let vports = counters["vports"].as_object().cloned().unwrap_or_default();
        Ok(HostReport {
            name: format!("host{}", deployment.number(host)),
            software,
            frames,
            finished: counters["nic"]["finished"].as_u64().unwrap_or(0),
            flows: flows.as_array().map_or(0, Vec::len),
            drops: entries
                .iter()
                .map(|d| {
                    let reason = d["reason"].as_str().unwrap_or("?").to_owned();
                    (reason, d["packets"].as_u64().unwrap_or(0))
                })
                .collect(),
            vports: vports
                .iter()
                .map(|(name, port)| {
                    let packets = |field: &str| port[field].as_u64().unwrap_or(0);
                    // The name follows the vport's number.
                    let name = name.split_once(' ').map_or(name.as_str(), |(_, name)| name);
                    (name.to_owned(), packets("inPackets"), packets("outPackets"))
                })
                .collect(),
        })
    }

    /// The share of its frames that needed no decision.
    pub(crate) fn share(&self) -> f64 {
        if self.frames == 0 { 0.0 } else { self.finished as f64 / self.frames as f64 }
    }

    /// What forwarded them.
    pub(crate) fn alone(&self) -> &'static str {
        if self.software { "by the flow table alone" } else { "by firmware alone" }
    }
}

fn sum(ports: &Value, field: &str) -> u64 {
    let ports = ports.as_object().into_iter().flatten();
    ports.filter_map(|(_, port)| port[field].as_u64()).sum()
}
