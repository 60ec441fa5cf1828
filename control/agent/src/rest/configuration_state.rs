//! `configurationState` of a resource: whether this host carries it out, and why not.

use culvert_api::view::{UplinkState, VportState};
use culvert_model::HostConfig;
use serde_json::{Value, json};

use crate::agent::Current;
use crate::datapath::Conditions;

/// One thing that there is to say.
struct Detail {
    status: &'static str,
    source: String,
    message: String,
}

/// The state of a resource with this reference, such as `/networkInterfaces/web`.
pub(super) fn configuration_state(reference: &str, current: &Current) -> Value {
    if let Some(problem) = &current.applied.problem {
        return state(&[Detail {
            status: "Failure",
            source: "policy".to_owned(),
            message: problem.to_string(),
        }]);
    }
    let conditions = current.conditions();
    let Some(config) = &current.config else { return state(&[]) };
    let mut parts = reference.trim_matches('/').splitn(2, '/');
    let (collection, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let details = match collection {
        "networkInterfaces" => of_interface(id, config, &conditions),
        "servers" => of_server(id, config, &conditions),
        _ => Vec::new(),
    };
    state(&details)
}

fn of_interface(id: &str, config: &HostConfig, conditions: &Conditions) -> Vec<Detail> {
    let here = config.vports.iter().find(|vport| {
        let interface = config.fabric.interfaces.get(vport.interface);
        interface.is_some_and(|interface| interface.name.eq_ignore_ascii_case(id))
    });
    let Some(vport) = here else { return Vec::new() };
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
