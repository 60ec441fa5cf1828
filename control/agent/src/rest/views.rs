//! `/culvert/v1/...`: the running host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use culvert_api::view::{FlowQuery, MappingView, RuleView, TraceRequest, VportView};
use culvert_api::{Direction, Offload, RuleAction};
use culvert_model::Fabric;
use culvert_policy::ListDirection;
use culvert_policy::snapshot::Target;
use culvert_slowpath::RuleHit;

use super::reply::{self, Reply, blocking};
use super::request::{Body, Query};
use crate::agent::Current;
use crate::{Agent, Error};

/// The rule for what a list does without one.
const DEFAULT_RULE: &str = "default";

pub(super) async fn nic(State(agent): State<Arc<Agent>>) -> Reply {
    let view = blocking(agent, |agent| {
        let mut nic = agent.datapath().nic()?;
        let current = agent.current();
        let uplinks =
            current.config.iter().filter_map(|p| p.fabric.hosts.get(p.host?)).flat_map(|h| &h.uplinks);
        for known in uplinks {
            if let Some(shown) = nic.uplinks.iter_mut().find(|u| u.uplink == known.number) {
                shown.provider_address = known.pa.to_string();
            }
        }
        Ok(nic)
    });
    reply::ok(&view.await?)
}

pub(super) async fn vports(State(agent): State<Arc<Agent>>) -> Reply {
    let view = blocking(agent, |agent| {
        let mut vports = agent.datapath().vports()?;
        vports.extend(missing(agent, &vports));
        name_vports(&agent.current(), &mut vports);
        Ok(vports)
    });
    reply::ok(&view.await?)
}

/// Adds what the policy says of vports.
pub(super) fn name_vports(current: &Current, vports: &mut [VportView]) {
    let names = current.vports();
    let Some(config) = &current.config else { return };
    for vport in vports {
        let Some(interface) = names.get(&vport.id).and_then(|i| config.fabric.interfaces.get(*i)) else {
            continue;
        };
        vport.name.clone_from(&interface.name);
        vport.requested = interface.offload;
        vport.reason = match (vport.requested, vport.served_by) {
            (Offload::Vf, Offload::Vmq) => "the NIC has no free virtual function",
            (Offload::Software, Offload::Vmq) => "the NIC steers its frames to a receive queue",
            (Offload::Vf | Offload::Vmq, Offload::Software) => "this host has no NIC with this offload",
            _ => "",
        }
        .to_owned();
        vport.addresses = interface.addresses.iter().map(ToString::to_string).collect();
        vport.mac = interface.mac.to_string();
        if let Some((network, subnet)) = config.fabric.subnet_of(interface) {
            vport.virtual_network.clone_from(&network.name);
            vport.rdid = network.rdid.to_string();
            vport.vsid = subnet.vsid.get();
        }
    }
}

/// The vports of the policy that the datapath does not have, with the reason.
fn missing(agent: &Agent, known: &[VportView]) -> Vec<VportView> {
    let known: BTreeSet<u16> = known.iter().map(|vport| vport.id).collect();
    let (conditions, current) = (agent.datapath().conditions(), agent.current());
    let vports = current.config.iter().flat_map(|config| &config.vports);
    let targets: BTreeMap<u16, Target> = vports.map(|vport| (vport.id.0, vport.target)).collect();
    let missing = conditions.vports.iter().filter(|(id, _)| !known.contains(id));
    let shown = missing.map(|(id, seen)| VportView {
        id: *id,
        state: seen.state,
        state_reason: seen.reason.clone(),
        served_by: match targets.get(id) {
            Some(Target::Vf(_)) => Offload::Vf,
            Some(Target::Vmq(_)) => Offload::Vmq,
            Some(Target::Software) | None => Offload::Software,
        },
        ..VportView::default()
    });
    shown.collect()
}

pub(super) async fn flows(State(agent): State<Arc<Agent>>, Query(query): Query<FlowQuery>) -> Reply {
    reply::ok(&blocking(agent, move |agent| Ok(agent.datapath().flows(&query)?)).await?)
}

pub(super) async fn talkers(State(agent): State<Arc<Agent>>, Query(query): Query<FlowQuery>) -> Reply {
    reply::ok(&blocking(agent, move |agent| Ok(agent.datapath().talkers(&query)?)).await?)
}

/// DELETE: deletes the flow records that the query names.
pub(super) async fn flush(State(agent): State<Arc<Agent>>, Query(query): Query<FlowQuery>) -> Reply {
    reply::ok(&blocking(agent, move |agent| Ok(agent.datapath().flush_flows(&query)?)).await?)
}

pub(super) async fn rules(State(agent): State<Arc<Agent>>) -> Reply {
    reply::ok(&rule_views(&agent.current(), &agent.datapath().rule_hits()))
}

pub(super) async fn counters(State(agent): State<Arc<Agent>>) -> Reply {
    reply::ok(&blocking(agent, |agent| Ok(agent.datapath().counters()?)).await?)
}

pub(super) async fn drops(State(agent): State<Arc<Agent>>) -> Reply {
    reply::ok(&blocking(agent, |agent| Ok(agent.datapath().drops()?)).await?)
}

pub(super) async fn health(State(agent): State<Arc<Agent>>) -> Reply {
    let health = blocking(agent, |agent| Ok(agent.health())).await?;
    let status = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(reply::json(status, &health))
}

pub(super) async fn mappings(State(agent): State<Arc<Agent>>) -> Reply {
    reply::ok(&mapping_views(&agent.current()))
}

pub(super) async fn trace(State(agent): State<Arc<Agent>>, Body(body): Body) -> Reply {
    let mut request: TraceRequest = reply::read(&body)?;
    let view = blocking(agent, move |agent| {
        request.port = port(&agent.current(), &request.port)?;
        Ok(agent.datapath().trace(&request)?)
    });
    reply::ok(&view.await?)
}

/// Converts a port's name to the datapath's: an interface becomes its vport's number.
fn port(current: &Current, name: &str) -> Result<String, Error> {
    if name.starts_with("uplink") || name.parse::<u16>().is_ok() {
        return Ok(name.to_owned());
    }
    let here: Vec<(u16, &str)> = match &current.config {
        Some(config) => config
            .vports
            .iter()
            .filter_map(|v| Some((v.id.0, config.fabric.interfaces.get(v.interface)?.name.as_str())))
            .collect(),
        None => Vec::new(),
    };
    match here.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)) {
        Some((id, _)) => Ok(id.to_string()),
        None => {
            let names: Vec<&str> = here.iter().map(|(_, name)| *name).collect();
            Err(Error::BadRequest {
                message: format!("there is no port \"{name}\" on this host"),
                remedy: format!("use uplink0, uplink1, a vport's number, or one of {}", names.join(", ")),
            })
        }
    }
}

/// The rules of all lists, in the order in which they are checked, with their hits.
fn rule_views(current: &Current, hits: &[RuleHit]) -> Vec<RuleView> {
    let Some(config) = &current.config else { return Vec::new() };
    let known: HashMap<(&str, ListDirection, &str), u64> =
        hits.iter().map(|hit| ((hit.list.as_str(), hit.direction, hit.rule.as_str()), hit.hits)).collect();
    let mut out = Vec::new();
    for list in &config.fabric.acls {
        let directions = [
            (Direction::Inbound, ListDirection::Inbound, list.inbound_default),
            (Direction::Outbound, ListDirection::Outbound, list.outbound_default),
        ];
        for (direction, checked, default) in directions {
            let of_list = list.rules.iter().filter(|rule| rule.direction == direction);
            let mut rules: Vec<(&str, Option<u16>, RuleAction)> =
                of_list.map(|rule| (rule.name.as_str(), Some(rule.priority), rule.action)).collect();
            rules.sort_by_key(|(_, priority, _)| *priority);
            rules.push((DEFAULT_RULE, None, default));
            out.extend(rules.into_iter().map(|(rule, priority, action)| RuleView {
                list: list.name.clone(),
                direction: direction_word(checked).to_owned(),
                rule: rule.to_owned(),
                priority,
                action: match action {
                    RuleAction::Allow => "allow".to_owned(),
                    RuleAction::Deny => "deny".to_owned(),
                },
                hits: known.get(&(list.name.as_str(), checked, rule)).copied().unwrap_or(0),
            }));
        }
    }
    out
}

/// The word for a list's direction.
pub(super) fn direction_word(direction: ListDirection) -> &'static str {
    match direction {
        ListDirection::Inbound => "inbound",
        ListDirection::Outbound => "outbound",
    }
}

fn mapping_views(current: &Current) -> Vec<MappingView> {
    let Some(config) = &current.config else { return Vec::new() };
    let fabric: &Fabric = &config.fabric;
    let vports: HashMap<usize, u16> = config.vports.iter().map(|v| (v.interface, v.id.0)).collect();
    let mut out = Vec::new();
    for (index, interface) in fabric.interfaces.iter().enumerate() {
        let Some((network, subnet)) = fabric.subnet_of(interface) else { continue };
        let host = interface.host.and_then(|h| fabric.hosts.get(h));
        let vport = vports.get(&index).copied();
        for address in &interface.addresses {
            out.push(MappingView {
                virtual_network: network.name.clone(),
                rdid: network.rdid.to_string(),
                vsid: subnet.vsid.get(),
                ca: address.to_string(),
                mac: interface.mac.to_string(),
                pas: host.iter().flat_map(|h| &h.uplinks).map(|u| u.pa.to_string()).collect(),
                server: host.map(|h| h.name.clone()).unwrap_or_default(),
                vport,
            });
        }
    }
    out
}
