//! Control traffic of the PA network: who has our addresses, echoes to them, and what others say of theirs.

use std::net::{IpAddr, Ipv4Addr};

use culvert_packet::ethernet::{self, EtherType};
use culvert_packet::{MacAddr, Protocol, VlanId, arp, craft, icmp, ipv4, vlan};

use crate::uplink::{LocalPa, Uplinks};

/// What a control frame from the wire means.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heard {
    /// A station's MAC, as heard by our address with this number.
    pub neighbour: Option<(u8, Ipv4Addr, MacAddr)>,
    /// The frame that answers it.
    pub answer: Option<Vec<u8>>,
}

/// Looks at a frame that came in at `uplink` and is not encapsulated. What is not for us means nothing.
pub fn hear(uplinks: &Uplinks, uplink: u8, frame: &[u8]) -> Heard {
    let Some((ethernet, tag, payload)) = untag(frame) else { return Heard::default() };
    let ours = |addr: Ipv4Addr| {
        uplinks.number(IpAddr::V4(addr)).and_then(|n| {
            let pa = uplinks.pas().get(usize::from(n))?;
            (uplinks.serving(n) == Some(uplink) && pa.vlan == tag).then_some((n, *pa))
        })
    };
    match ethernet.ethertype {
        EtherType::ARP => hear_arp(uplinks, uplink, tag, payload, ours),
        EtherType::IPV4 => Heard { neighbour: None, answer: echo(&ethernet, payload, ours) },
        _ => Heard::default(),
    }
}

/// Header with the EtherType behind a VLAN tag, the tag, the rest.
fn untag(frame: &[u8]) -> Option<(ethernet::Header, Option<VlanId>, &[u8])> {
    let (header, payload) = ethernet::Header::parse(frame).ok()?;
    if header.ethertype != EtherType::VLAN {
        return Some((header, None, payload));
    }
    let (tag, payload) = vlan::Header::parse(payload).ok()?;
    let id = VlanId::new(tag.tci.0 & 0xfff).ok()?;
    Some((ethernet::Header { ethertype: tag.ethertype, ..header }, Some(id), payload))
}

fn hear_arp(
    uplinks: &Uplinks,
    uplink: u8,
    tag: Option<VlanId>,
    payload: &[u8],
    ours: impl Fn(Ipv4Addr) -> Option<(u8, LocalPa)>,
) -> Heard {
    let Ok(packet) = arp::Packet::parse(payload) else { return Heard::default() };
    if uplinks.number(IpAddr::V4(packet.sender)).is_some() {
        return Heard::default();
    }
    let target = ours(packet.target);
    // An announcement names no address of ours: it concerns whichever of ours is on that wire.
    let announced = || {
        let here = |n: &u8| {
            uplinks.serving(*n) == Some(uplink)
                && uplinks.pas().get(usize::from(*n)).is_some_and(|pa| pa.vlan == tag)
        };
        (0..uplinks.pas().len() as u8).find(here).filter(|_| packet.is_gratuitous())
    };
    let by = target.map(|(n, _)| n).or_else(announced);
    let neighbour = by.filter(|_| !packet.sender.is_unspecified());
    let answer = target
        .filter(|_| packet.operation == arp::Operation::REQUEST)
        .and_then(|(_, pa)| arp_frame(&packet.reply(pa.mac), pa.vlan, None));
    Heard { neighbour: neighbour.map(|n| (n, packet.sender, packet.sender_mac)), answer }
}

fn echo(
    ethernet: &ethernet::Header,
    payload: &[u8],
    ours: impl Fn(Ipv4Addr) -> Option<(u8, LocalPa)>,
) -> Option<Vec<u8>> {
    let (ip, message) = ipv4::Header::parse(payload).ok()?;
    let (_, pa) = ours(ip.dst)?;
    let ends = craft::Ends {
        src_mac: ethernet.src,
        dst_mac: ethernet.dst,
        src: IpAddr::V4(ip.src),
        dst: IpAddr::V4(ip.dst),
    };
    // Only what came to this station alone is answered (RFC 1122 section 3.2.2.6 allows to stay silent otherwise).
    let asked = ip.protocol == Protocol::ICMP
        && !ip.is_fragment()
        && ethernet.dst == pa.mac
        && ethernet.src.is_unicast()
        && icmp::verify(ends.src, ends.dst, message);
    let (header, data) = icmp::Header::parse(message).ok().filter(|_| asked)?;
    if (header.kind, header.code) != (icmp::v4::ECHO_REQUEST, 0) {
        return None;
    }
    let mut frame = vec![0; 64 + data.len()];
    let len = craft::pong(&mut frame, &ends.reversed(), header.identifier(), header.sequence(), data).ok()?;
    tagged(frame, len, pa.vlan)
}

/// Question for a next hop's MAC; at a known MAC, or to all.
pub fn ask(pa: &LocalPa, target: Ipv4Addr, at: Option<MacAddr>) -> Option<Vec<u8>> {
    let IpAddr::V4(sender) = pa.addr else { return None };
    let packet = arp::Packet {
        operation: arp::Operation::REQUEST,
        sender_mac: pa.mac,
        sender,
        target_mac: MacAddr::ZERO,
        target,
    };
    arp_frame(&packet, pa.vlan, at)
}

/// Announces one of our addresses (gratuitous ARP, RFC 5227 section 2.3).
pub fn announce(pa: &LocalPa) -> Option<Vec<u8>> {
    let IpAddr::V4(sender) = pa.addr else { return None };
    ask(pa, sender, None)
}

fn arp_frame(packet: &arp::Packet, vlan: Option<VlanId>, at: Option<MacAddr>) -> Option<Vec<u8>> {
    let mut frame = vec![0; 64];
    let len = craft::arp(&mut frame, packet).ok()?;
    if let Some(mac) = at {
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
