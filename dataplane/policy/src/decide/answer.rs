//! Replies of the host: ARP, neighbour discovery and the router's ICMP, from the policy.

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use culvert_packet::craft::{self, Ends};
use culvert_packet::{Family, Fragment, Reason, VportId, arp, icmp};

use super::decision::{Outcome, Stop};
use super::packet::Packet;
use crate::snapshot::{Snapshot, Subnet, Vport};
use crate::trace::{Layer, TraceSink};

/// Handles an ARP packet of a vport: answers requests from the policy, drops all others (HNV carries no ARP).
pub(super) fn arp(
    s: &Snapshot,
    packet: &Packet<'_>,
    id: VportId,
    vport: &Vport,
    subnet: &Subnet,
    trace: &mut impl TraceSink,
) -> Outcome {
    let mut end = |rule, reason: Reason| {
        trace.step(Layer::Bridge, Some(id), rule, reason.as_str());
        Err(Stop::Drop(reason))
    };
    let body = packet.frame.get(usize::from(packet.headers.l3)..).unwrap_or_default();
    let request = arp::Packet::parse(body)?;
    if request.sender_mac != vport.mac {
        return end("arp-sender", Reason::SpoofedMac);
    }
    let sender = IpAddr::V4(request.sender);
    // A sender of 0.0.0.0 probes whether an address is free (RFC 5227).
    if !request.sender.is_unspecified() && !vport.addresses.contains(&sender) {
        return end("arp-sender", Reason::SpoofedCa);
    }
    let target = IpAddr::V4(request.target);
    if request.operation != arp::Operation::REQUEST || vport.addresses.contains(&target) {
        return end("arp", Reason::ArpSuppressed);
    }
    let mac = if subnet.gateways.contains(&target) {
        s.router_mac
    } else {
        match s.mappings.by_ca(vport.rdid, target).filter(|m| m.vsid == vport.vsid) {
            Some(mapping) => mapping.mac,
            None => return end("arp", Reason::ArpUnknown),
        }
    };
    let mut frame = vec![0; 64];
    let len = craft::arp(&mut frame, &request.reply(mac))?;
    frame.truncate(len);
    trace.step(Layer::Bridge, Some(id), "arp", "reply");
    Err(Stop::Reply(tagged_as(packet, frame)))
}

/// Whether a packet is neighbour discovery (RFC 4861): a solicitation or an advertisement.
pub(super) fn is_neighbour_discovery(packet: &Packet<'_>) -> bool {
    let h = &packet.headers;
    let kinds = [u16::from(icmp::v6::NEIGHBOUR_SOLICITATION), u16::from(icmp::v6::NEIGHBOUR_ADVERTISEMENT)];
    h.family == Family::V6 && h.protocol == 58 && h.l4 != 0 && kinds.contains(&h.l4_src)
}

/// Neighbour discovery of a vport: as [`arp`].
pub(super) fn neighbour(
    s: &Snapshot,
    packet: &Packet<'_>,
    id: VportId,
    vport: &Vport,
    subnet: &Subnet,
    trace: &mut impl TraceSink,
) -> Outcome {
    let mut end = |rule, reason: Reason| {
        trace.step(Layer::Bridge, Some(id), rule, reason.as_str());
        Err(Stop::Drop(reason))
    };
    let message = transport(packet).unwrap_or_default();
    let Some((IpAddr::V6(src), dst)) = packet.addresses() else { return Err(Reason::Unsupported.into()) };
    // RFC 4861 section 7.1: ignore a packet that was forwarded or is damaged.
    if packet.headers.ttl != 255 || !icmp::verify(IpAddr::V6(src), dst, message) {
        return end("neighbour", Reason::Unsupported);
    }
    let Some(question) = icmp::Neighbour::parse(message)? else { return Err(Reason::Unsupported.into()) };
    if question.mac.is_some_and(|mac| mac != vport.mac) {
        return end("neighbour-sender", Reason::SpoofedMac);
    }
    let target = IpAddr::V6(question.target);
    if !question.solicitation || vport.addresses.contains(&target) {
        return end("neighbour", Reason::ArpSuppressed);
    }
    let gateway = subnet.gateways.contains(&target);
    let mac = if gateway {
        s.router_mac
    } else {
        match s.mappings.by_ca(vport.rdid, target).filter(|m| m.vsid == vport.vsid) {
            Some(mapping) => mapping.mac,
            None => return end("neighbour", Reason::ArpUnknown),
        }
    };
    let router = if gateway { icmp::Neighbour::ROUTER } else { 0 };
    let flags = router | icmp::Neighbour::SOLICITED | icmp::Neighbour::OVERRIDE;
    let answer = icmp::Neighbour { solicitation: false, flags, target: question.target, mac: Some(mac) };
    let ends = Ends { src_mac: mac, dst_mac: vport.mac, src: target, dst: IpAddr::V6(src) };
    let mut frame = vec![0; 128];
    let len = craft::neighbour(&mut frame, &ends, &answer)?;
    frame.truncate(len);
    trace.step(Layer::Bridge, Some(id), "neighbour", "reply");
    Err(Stop::Reply(tagged_as(packet, frame)))
}

/// The transport part of an IP packet, without padding.
fn transport<'p>(packet: &Packet<'p>) -> Option<&'p [u8]> {
    let h = &packet.headers;
    packet.frame.get(usize::from(h.l4)..usize::from(h.l3) + usize::from(h.l3_len))
}

/// The gateway's error for a packet whose TTL expired (RFC 792, RFC 4443 section 3.3). `None`: the packet is an error
/// itself, or not the first fragment (RFC 1812 section 4.3.2.7).
pub(super) fn time_exceeded(packet: &Packet<'_>, gateway: IpAddr) -> Option<Vec<u8>> {
    let h = &packet.headers;
    let (src, _) = packet.addresses()?;
    let (kind, most, errors) = match h.family {
        // RFC 1812 section 4.3.2.3: no more than 576 bytes; RFC 4443: no more than the least MTU.
        Family::V4 => (icmp::v4::TIME_EXCEEDED, 576 - 28, &[3, 4, 5, 11, 12][..]),
        _ => (icmp::v6::TIME_EXCEEDED, 1280 - 48, &[1, 2, 3, 4, 137][..]),
    };
    let is_error =
        matches!((h.family, h.protocol), (Family::V4, 1) | (Family::V6, 58)) && errors.contains(&h.l4_src);
    if is_error || h.fragment == Fragment::Later {
        return None;
    }
    let whole = packet.frame.get(usize::from(h.l3)..usize::from(h.l3) + usize::from(h.l3_len))?;
    let data = whole.get(..whole.len().min(most))?;
    let ends = Ends { src_mac: packet.dst_mac(), dst_mac: packet.src_mac(), src: gateway, dst: src };
    let mut frame = vec![0; data.len() + 128];
    let len = craft::icmp(&mut frame, &ends, &icmp::Header { kind, ..icmp::Header::default() }, data).ok()?;
    frame.truncate(len);
    Some(tagged_as(packet, frame))
}

/// The reply to an echo request to the gateway. `None`: the packet is not one.
pub(super) fn ping(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let h = &packet.headers;
    let (src, dst) = packet.addresses()?;
    let (request, reply) = match h.family {
        Family::V4 => (icmp::v4::ECHO_REQUEST, icmp::v4::ECHO_REPLY),
        _ => (icmp::v6::ECHO_REQUEST, icmp::v6::ECHO_REPLY),
    };
    let is_icmp = matches!((h.family, h.protocol), (Family::V4, 1) | (Family::V6, 58));
    if !is_icmp || h.l4 == 0 || h.l4_src != u16::from(request) {
        return None;
    }
    let (question, data) = icmp::Header::parse(transport(packet)?).ok()?;
    let ends = Ends { src_mac: packet.dst_mac(), dst_mac: packet.src_mac(), src: dst, dst: src };
    let header = icmp::Header::echo(reply, question.identifier(), question.sequence());
    let mut frame = vec![0; packet.frame.len() + 64];
    let len = craft::icmp(&mut frame, &ends, &header, data).ok()?;
    frame.truncate(len);
    Some(tagged_as(packet, frame))
}

/// The answer to a tagged frame has the same tag.
fn tagged_as(packet: &Packet<'_>, mut frame: Vec<u8>) -> Vec<u8> {
    if packet.headers.tagged {
        let len = frame.len();
        frame.resize(len + 4, 0);
        if craft::tag(&mut frame, len, packet.headers.vlan_tci).is_err() {
            frame.truncate(len);
        }
    }
    frame
}
