//! Control frames of the PA network: ARP requests and announcements, and replies to ARP and echo for our addresses.

use std::net::{IpAddr, Ipv4Addr};

use culvert_packet::ethernet::{self, EtherType};
use culvert_packet::{MacAddr, Protocol, VlanId, arp, craft, icmp, ipv4, vlan};

use super::uplink::{LocalPa, Uplinks};

/// A neighbour's MAC, as a control frame says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Neighbour {
    /// Number of our address on the neighbour's wire.
    pub(super) pa: u8,
    /// The neighbour's address.
    pub(super) addr: Ipv4Addr,
    /// Its MAC.
    pub(super) mac: MacAddr,
}

/// What a control frame from the wire leads to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ControlOutcome {
    /// The neighbour whose MAC the frame tells.
    pub(super) neighbour: Option<Neighbour>,
    /// The frame to send back.
    pub(crate) reply: Option<Vec<u8>>,
}

/// Handles a frame from an uplink that is not encapsulated. Frames for others lead to nothing.
pub(super) fn handle_control(uplinks: &Uplinks, uplink: u8, frame: &[u8]) -> ControlOutcome {
    let Some((ethernet, tag, payload)) = untag(frame) else { return ControlOutcome::default() };
    let local = |addr: Ipv4Addr| {
        uplinks.number(IpAddr::V4(addr)).and_then(|number| {
            let pa = uplinks.pa(number)?;
            (uplinks.serving(number) == Some(uplink) && pa.vlan == tag).then_some((number, *pa))
        })
    };
    match ethernet.ethertype {
        EtherType::ARP => handle_arp(uplinks, uplink, tag, payload, local),
        EtherType::IPV4 => ControlOutcome { neighbour: None, reply: echo_reply(&ethernet, payload, local) },
        _ => ControlOutcome::default(),
    }
}

/// Splits a frame into its Ethernet header with the inner EtherType, its VLAN tag and its payload.
fn untag(frame: &[u8]) -> Option<(ethernet::Header, Option<VlanId>, &[u8])> {
    let (header, payload) = ethernet::Header::parse(frame).ok()?;
    if header.ethertype != EtherType::VLAN {
        return Some((header, None, payload));
    }
    let (tag, payload) = vlan::Header::parse(payload).ok()?;
    let id = VlanId::new(tag.tci.0 & 0xfff).ok()?;
    Some((ethernet::Header { ethertype: tag.ethertype, ..header }, Some(id), payload))
}

fn handle_arp(
    uplinks: &Uplinks,
    uplink: u8,
    tag: Option<VlanId>,
    payload: &[u8],
    local: impl Fn(Ipv4Addr) -> Option<(u8, LocalPa)>,
) -> ControlOutcome {
    let Ok(packet) = arp::Packet::parse(payload) else { return ControlOutcome::default() };
    if uplinks.number(IpAddr::V4(packet.sender)).is_some() {
        return ControlOutcome::default();
    }
    let target = local(packet.target);
    // An announcement names none of our addresses: it is for the first one on that wire.
    let announced = || {
        let is_on_wire = |number: &u8| {
            uplinks.serving(*number) == Some(uplink) && uplinks.pa(*number).is_some_and(|pa| pa.vlan == tag)
        };
        (0..uplinks.pas().len() as u8).find(is_on_wire).filter(|_| packet.is_gratuitous())
    };
    let pa = target.map(|(number, _)| number).or_else(announced);
    let pa = pa.filter(|_| !packet.sender.is_unspecified());
    let reply = target
        .filter(|_| packet.operation == arp::Operation::REQUEST)
        .and_then(|(_, pa)| arp_frame(&packet.reply(pa.mac), pa.vlan, None));
    let neighbour = pa.map(|pa| Neighbour { pa, addr: packet.sender, mac: packet.sender_mac });
    ControlOutcome { neighbour, reply }
}

fn echo_reply(
    ethernet: &ethernet::Header,
    payload: &[u8],
    local: impl Fn(Ipv4Addr) -> Option<(u8, LocalPa)>,
) -> Option<Vec<u8>> {
    let (ip, message) = ipv4::Header::parse(payload).ok()?;
    let (_, pa) = local(ip.dst)?;
    let ends = craft::Ends {
        src_mac: ethernet.src,
        dst_mac: ethernet.dst,
        src: IpAddr::V4(ip.src),
        dst: IpAddr::V4(ip.dst),
    };
    // Only unicast gets a reply (RFC 1122 section 3.2.2.6 allows silence otherwise).
    let is_echo = ip.protocol == Protocol::ICMP
        && !ip.is_fragment()
        && ethernet.dst == pa.mac
        && ethernet.src.is_unicast()
        && icmp::verify(ends.src, ends.dst, message);
    let (header, data) = icmp::Header::parse(message).ok().filter(|_| is_echo)?;
    if (header.kind, header.code) != (icmp::v4::ECHO_REQUEST, 0) {
        return None;
    }
    let mut frame = vec![0; 64 + data.len()];
    let len = craft::pong(&mut frame, &ends.reversed(), header.identifier(), header.sequence(), data).ok()?;
    tagged(frame, len, pa.vlan)
}

/// An ARP request for a next hop, sent to a known MAC or to all.
pub(super) fn arp_request(pa: &LocalPa, target: Ipv4Addr, to: Option<MacAddr>) -> Option<Vec<u8>> {
    let IpAddr::V4(sender) = pa.addr else { return None };
    let packet = arp::Packet {
        operation: arp::Operation::REQUEST,
        sender_mac: pa.mac,
        sender,
        target_mac: MacAddr::ZERO,
        target,
    };
    arp_frame(&packet, pa.vlan, to)
}

/// An announcement of one of our addresses (gratuitous ARP, RFC 5227 section 2.3).
pub(super) fn arp_announcement(pa: &LocalPa) -> Option<Vec<u8>> {
    let IpAddr::V4(sender) = pa.addr else { return None };
    arp_request(pa, sender, None)
}

fn arp_frame(packet: &arp::Packet, vlan: Option<VlanId>, to: Option<MacAddr>) -> Option<Vec<u8>> {
    let mut frame = vec![0; 64];
    let len = craft::arp(&mut frame, packet).ok()?;
    if let Some(mac) = to {
        frame[..6].copy_from_slice(&mac.0);
    }
    tagged(frame, len, vlan)
}

fn tagged(mut frame: Vec<u8>, mut len: usize, vlan: Option<VlanId>) -> Option<Vec<u8>> {
    if let Some(id) = vlan {
        len = craft::tag(&mut frame, len, id.get()).ok()?;
    }
    frame.truncate(len);
    Some(frame)
}

#[cfg(test)]
mod tests;
