//! Packets from other hosts: peer, bridge, lists.

use alloc::boxed::Box;

use culvert_packet::{Encap, Family, Rdid, Reason, VportId};

use super::decision::{Decision, Forward, Outcome, Stop};
use super::packet::Packet;
use super::record::{self, Common};
use super::stateful;
use crate::connection::Connections;
use crate::snapshot::{Location, Mapping, Snapshot, Subnet};
use crate::trace::{Layer, ListDirection, TraceSink};

pub(super) fn decide(
    s: &Snapshot,
    connections: &Connections,
    packet: &Packet<'_>,
    (peer, _, vsid): (u16, Encap, u32),
    now: u32,
    trace: &mut impl TraceSink,
) -> Outcome {
    let subnet = check_peer(s, peer, vsid, trace)?;
    if packet.headers.family == Family::Arp {
        // Every host answers ARP from its policy: none is tunnelled.
        return Err(Reason::ArpSuppressed.into());
    }
    let from = source(s, packet, peer, subnet, trace)?;
    let dst_mac = packet.dst_mac();
    if dst_mac.is_multicast() {
        let group = subnet.group_in.ok_or(Reason::NoReceiver)?;
        trace.step(Layer::Bridge, None, "multicast", "replicate");
        let record = record::flood(s, None, packet.key, group, vsid);
        let forward = Forward { record, reverse: None, offload: packet.offload() };
        return Ok((Decision::Forward(Box::new(forward)), None));
    }
    let id = match s.mappings.by_mac(vsid, dst_mac).map(|m| m.location) {
        Some(Location::Local(id)) => id,
        _ => {
            trace.step(Layer::Bridge, None, "mac", Reason::UnknownDestinationMac.as_str());
            return Err(Reason::UnknownDestinationMac.into());
        }
    };
    trace.step(Layer::Bridge, Some(id), "mac", "deliver");
    deliver(s, connections, packet, from, id, subnet.rdid, now, trace)
}

/// Whether a host may send into a subnet: it has vports in it, or in another subnet of the virtual network, from which
/// it routes.
fn check_peer<'s>(
    s: &'s Snapshot,
    peer: u16,
    vsid: u32,
    trace: &mut impl TraceSink,
) -> Result<&'s Subnet, Stop> {
    let mut fail = |reason: Reason| {
        trace.step(Layer::Peer, None, "vsid", reason.as_str());
        Err(Stop::Drop(reason))
    };
    let here = s.subnets.get(&vsid).filter(|_| s.vports.values().any(|v| v.vsid == vsid));
    let Some(subnet) = here else { return fail(Reason::UnknownVsid) };
    let Some(known) = s.peers.get(&peer) else { return fail(Reason::UnknownSourcePa) };
    let has_part = |v: &u32| s.subnets.get(v).is_some_and(|n| n.rdid == subnet.rdid);
    if !known.vsids.contains(&vsid) && !known.vsids.iter().any(has_part) {
        return fail(Reason::PaNotInVsid);
    }
    trace.step(Layer::Peer, None, "vsid", "allow");
    Ok(subnet)
}

/// The mapping of the source, which must be on the host that the packet came from.
fn source<'s>(
    s: &'s Snapshot,
    packet: &Packet<'_>,
    peer: u16,
    subnet: &Subnet,
    trace: &mut impl TraceSink,
) -> Result<&'s Mapping, Stop> {
    let there = |m: &&Mapping| matches!(m.location, Location::Remote { peer: p, .. } if p == peer);
    let by_ca = packet.addresses().map(|(src, _)| s.mappings.by_ca(subnet.rdid, src).filter(there));
    let found = if packet.src_mac() == s.router_mac {
        by_ca.flatten().ok_or(Reason::SpoofedCa)
    } else {
        let by_mac = s.mappings.by_mac(subnet.vsid, packet.src_mac()).filter(there);
        match (by_mac, by_ca) {
            (None, _) => Err(Reason::SpoofedMac),
            (Some(m), None) => Ok(m),
            (Some(_), Some(Some(m))) if m.mac == packet.src_mac() => Ok(m),
            (Some(_), Some(_)) => Err(Reason::SpoofedCa),
        }
    };
    found.map_err(|reason| {
        trace.step(Layer::Peer, None, "source", reason.as_str());
        reason.into()
    })
}

fn deliver(
    s: &Snapshot,
    connections: &Connections,
    packet: &Packet<'_>,
    from: &Mapping,
    id: VportId,
    rdid: Rdid,
    now: u32,
    trace: &mut impl TraceSink,
) -> Outcome {
    let vport = s.vports.get(&id).ok_or(Reason::NoVport)?;
    if !vport.up {
        return Err(Reason::VportDown.into());
    }
    let lists: stateful::Lists<'_> = [Some((id, ListDirection::Inbound, &*vport.acls_in)), None];
    let (tracked, rules) = match packet.addresses() {
        Some(addresses) => stateful::pass(connections, packet, rdid, addresses, id, &lists, trace)?,
        None => (None, [0; 2]),
    };
    let common = Common { tracked, rules };
    let record = record::inbound(id, vport, packet.key, from, &common, false);
    let routed = packet.src_mac() == s.router_mac;
    let key = record::answer_from_vport(&packet.key, id, vport, packet.src_mac());
    let reverse = key.map(|key| record::outbound(s, vport, key, from, routed, &common, true));
    let effects = tracked.and_then(|t| t.effects(packet, record.key, reverse.map(|r| r.key), now));
    let forward = Forward { record, reverse, offload: packet.offload() };
    Ok((Decision::Forward(Box::new(forward)), effects))
}
