//! `/culvert/v1/...`: the running host.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use culvert_api::Offload;
use culvert_api::view::{FlowQuery, MappingView, TraceRequest};
use culvert_model::Fabric;

use super::reply::{self, Reply, blocking};
use crate::agent::Current;
use crate::{Agent, Error};

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
        let current = agent.current();
        let names = current.vports();
        for vport in &mut vports {
            let Some(config) = &current.config else { continue };
            let Some(interface) = names.get(&vport.id).and_then(|i| config.fabric.interfaces.get(*i)) else {
                continue;
            };
            vport.name = interface.name.clone();
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
                vport.virtual_network = network.name.clone();
                vport.rdid = network.rdid.to_string();
                vport.vsid = subnet.vsid.get();
            }
        }
        Ok(vports)
    });
    reply::ok(&view.await?)
}

pub(super) async fn flows(State(agent): State<Arc<Agent>>, Query(query): Query<FlowQuery>) -> Reply {
    reply::ok(&blocking(agent, move |agent| Ok(agent.datapath().flows(&query)?)).await?)
}

pub(super) async fn counters(State(agent): State<Arc<Agent>>) -> Reply {
    reply::ok(&blocking(agent, |agent| Ok(agent.datapath().counters()?)).await?)
}

pub(super) async fn drops(State(agent): State<Arc<Agent>>) -> Reply {
    reply::ok(&blocking(agent, |agent| Ok(agent.datapath().drops()?)).await?)
}

pub(super) async fn health(State(agent): State<Arc<Agent>>) -> Reply {
    reply::ok(&blocking(agent, |agent| Ok(agent.health())).await?)
}

pub(super) async fn mappings(State(agent): State<Arc<Agent>>) -> Reply {
    reply::ok(&mapping_views(&agent.current()))
}

pub(super) async fn trace(State(agent): State<Arc<Agent>>, body: Bytes) -> Reply {
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

fn mapping_views(current: &Current) -> Vec<MappingView> {
    let Some(config) = &current.config else { return Vec::new() };
    let fabric: &Fabric = &config.fabric;
    let mut out = Vec::new();
    for (index, interface) in fabric.interfaces.iter().enumerate() {
        let Some((network, subnet)) = fabric.subnet_of(interface) else { continue };
        let host = interface.host.and_then(|h| fabric.hosts.get(h));
        let vport = config.vports.iter().find(|v| v.interface == index).map(|v| v.id.0);
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
