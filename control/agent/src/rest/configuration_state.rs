//! `configurationState` of a resource: whether this host carries it out, and why not.

use std::collections::HashMap;
use std::sync::Arc;

use culvert_api::view::{UplinkState, VportState};
use culvert_model::{HostConfig, LocalVport};
use serde_json::{Value, json};

use crate::Agent;
use crate::agent::Current;
use crate::datapath::Conditions;

/// One thing that there is to say.
struct Detail {
    status: &'static str,
    source: String,
    message: String,
}

/// What the states of resources are made from.
pub(super) struct ConfigurationStates {
    current: Arc<Current>,
    conditions: Arc<Conditions>,
    /// Where this host's network interfaces are among its vports, by lower-case name.
    vports: HashMap<String, usize>,
}

impl ConfigurationStates {
    /// As they are now.
    pub(super) fn new(agent: &Agent) -> Self {
        let current = agent.current();
        let vports = current.config.iter().flat_map(|config| {
            let interface = |vport: &LocalVport| config.fabric.interfaces.get(vport.interface);
            let all = config.vports.iter().enumerate();
            all.filter_map(move |(n, vport)| Some((interface(vport)?.name.to_ascii_lowercase(), n)))
        });
        let vports = vports.collect();
        ConfigurationStates { current, conditions: agent.datapath().conditions(), vports }
    }

    /// The policy that they are of.
    pub(super) fn current(&self) -> &Current {
        &self.current
    }

    /// The state of a resource with this reference, such as `/networkInterfaces/web`.
    pub(super) fn of(&self, reference: &str) -> Value {
        if let Some(problem) = &self.current.applied.problem {
            return state(&[Detail {
                status: "Failure",
                source: "policy".to_owned(),
                message: problem.to_string(),
            }]);
        }
        let Some(config) = &self.current.config else { return state(&[]) };
        let mut parts = reference.trim_matches('/').splitn(2, '/');
        let (collection, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let here = || self.vports.get(&id.to_ascii_lowercase()).and_then(|n| config.vports.get(*n));
        let details = match collection {
            "networkInterfaces" => {
                here().map(|vport| of_vport(vport, config, &self.conditions)).unwrap_or_default()
            }
            "servers" => of_server(id, config, &self.conditions),
            _ => Vec::new(),
        };
        state(&details)
    }
}

fn of_vport(vport: &LocalVport, config: &HostConfig, conditions: &Conditions) -> Vec<Detail> {
    let mut details = Vec::new();
    if let Some(seen) = conditions.vports.get(&vport.id.0) {
        let status = match seen.state {
            VportState::Failed => Some("Failure"),
            VportState::Opening => Some("InProgress"),
            VportState::Up | VportState::Down | VportState::Stopped => None,
        };
        details.extend(status.map(|status| Detail {
            status,
            source: format!("vport {}", vport.id.0),
            message: seen.reason.clone(),
        }));
    }
    let place = config.snapshot.vports.get(&vport.id).map(|known| usize::from(known.local_pa));
    if let Some(pa) = place.and_then(|place| config.snapshot.local_pas.get(place)) {
        // Its virtual machine still reaches those of this host.
        details.extend(of_uplink(pa.uplink, conditions).map(|detail| Detail { status: "Warning", ..detail }));
    }
    details
}

fn of_server(id: &str, config: &HostConfig, conditions: &Conditions) -> Vec<Detail> {
    let own = config.host.and_then(|host| config.fabric.hosts.get(host));
    if own.is_none_or(|host| !host.name.eq_ignore_ascii_case(id)) {
        return Vec::new();
    }
    conditions.uplinks.keys().filter_map(|n| of_uplink(*n, conditions)).collect()
}

fn of_uplink(n: u8, conditions: &Conditions) -> Option<Detail> {
    let seen = conditions.uplinks.get(&n)?;
    let status = match seen.state {
        UplinkState::Up | UplinkState::Unused => return None,
        UplinkState::Opening => "InProgress",
        UplinkState::Degraded => "Warning",
        UplinkState::Down | UplinkState::Failed => "Failure",
    };
    Some(Detail { status, source: format!("uplink {n}"), message: seen.reason.clone() })
}

/// The worst of all details is the state.
fn state(details: &[Detail]) -> Value {
    let worst =
        ["Failure", "Warning", "InProgress"].into_iter().find(|s| details.iter().any(|d| d.status == *s));
    let Some(status) = worst else { return json!({ "status": "Success" }) };
    let shown = details.iter().map(|d| json!({ "source": d.source, "code": d.status, "message": d.message }));
    json!({ "status": status, "detailedInfo": shown.collect::<Vec<_>>() })
}
