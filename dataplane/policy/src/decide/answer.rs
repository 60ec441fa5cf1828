//! Answers that the host gives in the place of others: ARP from policy, and the gateway's echo.

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use culvert_packet::craft::{self, Ends};
use culvert_packet::{Family, Reason, VportId, arp, icmp};

use super::{Outcome, Packet, Stop};
use crate::snapshot::{Snapshot, Subnet, Vport};
use crate::trace::{Layer, TraceSink};

/// An ARP packet of a vport: requests are answered from policy, everything else ends here (HNV carries no ARP).
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

/// The answer to an echo request to the gateway. `None`: it is none.
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
    let end = usize::from(h.l3) + usize::from(h.l3_len);
    let (question, data) = icmp::Header::parse(packet.frame.get(usize::from(h.l4)..end)?).ok()?;
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
