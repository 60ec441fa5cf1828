//! Packets from the host's own vports: port, lists, bridge or router, mapping.

use alloc::boxed::Box;
use core::net::IpAddr;

use culvert_packet::{Family, MacAddr, Reason, VportId};

use super::decision::{Decision, Forward, Outcome, Stop};
use super::packet::Packet;
use super::record::{self, Common};
use super::{answer, stateful};
use crate::connection::Connections;
use crate::snapshot::{Location, Mapping, Snapshot, Subnet, Vport};
use crate::trace::{Layer, ListDirection, TraceSink};

pub(super) fn decide(
    s: &Snapshot,
    connections: &Connections,
    packet: &Packet<'_>,
    id: VportId,
    now: u32,
    trace: &mut impl TraceSink,
) -> Outcome {
    let vport = s.vports.get(&id).ok_or(Reason::NoVport)?;
    check_port(packet, id, vport, trace)?;
    let subnet = s.subnets.get(&vport.vsid).ok_or(Reason::UnknownVsid)?;
    if packet.headers.family == Family::Arp {
        return answer::arp(s, packet, id, vport, subnet, trace);
    }
    if let Some((src, _)) = packet.addresses() {
        check_source(packet, id, vport, src, trace)?;
    }
    if answer::is_neighbour_discovery(packet) {
        return answer::neighbour(s, packet, id, vport, subnet, trace);
    }
    let dst_mac = packet.dst_mac();
    if dst_mac.is_multicast() {
        return flood(s, connections, packet, id, vport, subnet, trace);
    }
    let (to, routed) = if dst_mac == s.router_mac {
        (route(s, packet, id, (vport, subnet), trace)?, true)
    } else {
        (bridge(s, id, vport, dst_mac, trace)?, false)
    };
    unicast(s, connections, packet, (id, vport), to, routed, now, trace)
}

/// The port layer: checks the vport's state, VLAN tag and source MAC.
fn check_port(
    packet: &Packet<'_>,
    id: VportId,
    vport: &Vport,
    trace: &mut impl TraceSink,
) -> Result<(), Stop> {
    let mut fail = |rule, reason: Reason| {
        trace.step(Layer::Port, Some(id), rule, reason.as_str());
        Err(Stop::Drop(reason))
    };
    if !vport.up {
        return fail("state", Reason::VportDown);
    }
    let tag = packet.headers.vlan_id();
    let allowed = vport.vlan.map_or(0, |v| v.get());
    if tag != allowed {
        return fail("vlan", Reason::VlanNotAllowed);
    }
    if packet.src_mac() != vport.mac {
        return fail("source-mac", Reason::SpoofedMac);
    }
    Ok(())
}

/// Anti-spoofing of the source address.
fn check_source(
    packet: &Packet<'_>,
    id: VportId,
    vport: &Vport,
    src: IpAddr,
    trace: &mut impl TraceSink,
) -> Result<(), Stop> {
    if vport.addresses.contains(&src) {
        trace.step(Layer::Port, Some(id), "source-ca", "allow");
        return Ok(());
    }
    // Packets that a host sends before it has an address: neighbour discovery, listener reports.
    let own = packet.headers.family == Family::V6
        && packet.headers.protocol == 58
        && matches!(packet.headers.l4_src, 130..=137 | 143);
    let reason = if own { Reason::ArpSuppressed } else { Reason::SpoofedCa };
    trace.step(Layer::Port, Some(id), "source-ca", reason.as_str());
    Err(reason.into())
}

/// Forwarding within the subnet, by destination MAC.
fn bridge<'s>(
    s: &'s Snapshot,
    id: VportId,
    vport: &Vport,
    mac: MacAddr,
    trace: &mut impl TraceSink,
) -> Result<&'s Mapping, Stop> {
    if let Some(to) = s.mappings.by_mac(vport.vsid, mac) {
        trace.step(Layer::Bridge, Some(id), "mac", "forward");
        return Ok(to);
    }
    // The MAC may belong to another tenant: then the reason is isolation.
    let reason = if s.mappings.knows_mac(mac) { Reason::Isolated } else { Reason::UnknownDestinationMac };
    trace.step(Layer::Bridge, Some(id), "mac", reason.as_str());
    Err(reason.into())
}

/// The distributed router: between the subnets of one virtual network, by destination address.
fn route<'s>(
    s: &'s Snapshot,
    packet: &Packet<'_>,
    id: VportId,
    (vport, subnet): (&Vport, &Subnet),
    trace: &mut impl TraceSink,
) -> Result<&'s Mapping, Stop> {
    let mut fail = |reason: Reason| {
        trace.step(Layer::Router, Some(id), "route", reason.as_str());
        Err(Stop::Drop(reason))
    };
    let Some((_, dst)) = packet.addresses() else { return fail(Reason::ToRouter) };
    let own = |subnet: &&Subnet| subnet.rdid == vport.rdid;
    if s.subnets.values().filter(own).any(|n| n.gateways.contains(&dst)) {
        return match answer::ping(packet) {
            Some(reply) => {
                trace.step(Layer::Router, Some(id), "gateway", "reply");
                Err(Stop::Reply(reply))
            }
            None => fail(Reason::ToRouter),
        };
    }
    if !s.networks.get(&vport.rdid).is_some_and(|n| n.distributed_router) {
        return fail(Reason::NoRoute);
    }
    if packet.headers.ttl <= 1 {
        let gateway = subnet.gateways.iter().find(|g| g.is_ipv4() == dst.is_ipv4());
        return match gateway.and_then(|gateway| answer::time_exceeded(packet, *gateway)) {
            Some(reply) => {
                trace.step(Layer::Router, Some(id), "ttl", "reply");
                Err(Stop::Reply(reply))
            }
            None => fail(Reason::TtlExceeded),
        };
    }
    match s.mappings.by_ca(vport.rdid, dst) {
        Some(to) => {
            trace.step(Layer::Router, Some(id), "route", "forward");
            Ok(to)
        }
        None if s.subnets.values().filter(own).any(|n| n.prefixes.iter().any(|p| p.contains(dst))) => {
            fail(Reason::UnknownDestinationCa)
        }
        None => fail(Reason::NoRoute),
    }
}

/// Lists, connection and records of a packet for one destination.
fn unicast(
    s: &Snapshot,
    connections: &Connections,
    packet: &Packet<'_>,
    (id, vport): (VportId, &Vport),
    to: &Mapping,
    routed: bool,
    now: u32,
    trace: &mut impl TraceSink,
) -> Outcome {
    let local = match to.location {
        Location::Local(other) if other == id => return Err(Reason::Hairpin.into()),
        Location::Local(other) => {
            let other_vport = s.vports.get(&other).ok_or(Reason::NoVport)?;
            if !other_vport.up {
                return Err(Reason::VportDown.into());
            }
            Some((other, other_vport))
        }
        Location::Remote { .. } => None,
    };
    let lists: stateful::Lists<'_> = [
        Some((id, ListDirection::Outbound, &*vport.acls_out)),
        local.map(|(other, v)| (other, ListDirection::Inbound, &*v.acls_in)),
    ];
    let (tracked, rules) = match packet.addresses() {
        Some(addresses) => stateful::pass(connections, packet, vport.rdid, addresses, id, &lists, trace)?,
        None => (None, [0; 2]),
    };
    let common = Common { tracked, rules };
    let record = record::outbound(s, vport, packet.key, to, routed, &common, false);
    // The reverse direction uses this vport's own mapping.
    let own = packet.addresses().and_then(|(src, _)| s.mappings.by_ca(vport.rdid, src));
    let reverse = match (to.location, local) {
        (Location::Remote { peer, .. }, _) => {
            trace.step(Layer::Mapping, Some(id), "remote", "encapsulate");
            let key = record::answer_from_wire(s, &packet.key, vport, to, peer, routed);
            key.map(|key| record::inbound(id, vport, key, to, &common, true))
        }
        (_, Some((other, other_vport))) => {
            trace.step(Layer::Mapping, Some(id), "local", "deliver");
            let back = if routed { s.router_mac } else { vport.mac };
            let key = record::answer_from_vport(&packet.key, other, other_vport, back);
            key.zip(own).map(|(key, own)| record::outbound(s, other_vport, key, own, routed, &common, true))
        }
        _ => None,
    };
    let effects = tracked.and_then(|t| t.effects(packet, record.key, reverse.map(|r| r.key), now));
    let forward = Forward { record, reverse, offload: packet.offload() };
    Ok((Decision::Forward(Box::new(forward)), effects))
}

/// Broadcast and multicast, within the subnet: one copy for each host and vport in it.
fn flood(
    s: &Snapshot,
    connections: &Connections,
    packet: &Packet<'_>,
    id: VportId,
    vport: &Vport,
    subnet: &Subnet,
    trace: &mut impl TraceSink,
) -> Outcome {
    if let Some(addresses) = packet.addresses() {
        let lists: stateful::Lists<'_> = [Some((id, ListDirection::Outbound, &*vport.acls_out)), None];
        stateful::pass(connections, packet, vport.rdid, addresses, id, &lists, trace)?;
    }
    let group = subnet.group_out.ok_or(Reason::NoReceiver)?;
    trace.step(Layer::Bridge, Some(id), "multicast", "replicate");
    let record = record::flood(s, Some(vport), packet.key, group, vport.vsid);
    let members = s.groups.get(&group).map(|g| g.members.as_slice()).unwrap_or_default();
    let offload = packet.offload();
    let offload = if members.len() > culvert_flow::tables::GROUP_MEMBERS {
        Err(Reason::GroupTooLarge)
    } else {
        offload
    };
    let forward = Forward { record, reverse: None, offload };
    Ok((Decision::Forward(Box::new(forward)), None))
}
