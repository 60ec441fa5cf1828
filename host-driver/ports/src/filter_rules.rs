//! Rules for the frames that a filter takes, of which classic BPF and the XDP program are made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_packet::{nvgre, vxlan};

/// A comparison of bits of a field. Offsets are those of a frame without a VLAN tag, which the kernel removes before it runs a
/// packet socket's filter.
#[derive(Clone, Copy)]
pub(crate) struct Match {
    pub(crate) base: Base,
    pub(crate) at: u32,
    pub(crate) width: Width,
    pub(crate) mask: u32,
    pub(crate) value: u32,
}

/// Where a field's offset counts from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// The frame.
    Frame,
    /// The end of the IPv4 header, which begins at byte 14 and may have options.
    BehindIpv4,
}

/// Width of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Byte = 1,
    Half = 2,
    Word = 4,
}

impl Width {
    /// All bits of the field.
    pub(crate) fn mask(self) -> u32 {
        u32::MAX >> (32 - 8 * self as u32)
    }
}

/// A rule for frames from known sources: if a frame fulfils all its matches, its source decides.
pub(crate) struct SourceRule {
    pub(crate) matches: Vec<Match>,
    /// Base and offset of the VSID, three bytes.
    pub(crate) vsid: (Base, u32),
    /// Offset of the outer source address.
    pub(crate) address: u32,
    /// Its length.
    pub(crate) address_len: u32,
}

/// Offset of the EtherType.
pub(crate) const ETHERTYPE: u32 = 12;

pub(crate) fn byte(at: u32, value: u32) -> Match {
    Match { base: Base::Frame, at, width: Width::Byte, mask: 0xff, value }
}

pub(crate) fn half(at: u32, value: u32) -> Match {
    Match { base: Base::Frame, at, width: Width::Half, mask: 0xffff, value }
}

pub(crate) fn word(at: u32, value: u32) -> Match {
    Match { base: Base::Frame, at, width: Width::Word, mask: u32::MAX, value }
}

/// Only a datagram's first fragment has the headers behind IPv4.
const FIRST_FRAGMENT: Match = Match { base: Base::Frame, at: 20, width: Width::Half, mask: 0x1fff, value: 0 };

/// Rules for frames of the overlay to an address. A rule accepts a frame that fulfils all its matches.
pub(crate) fn overlay_rules(address: IpAddr) -> Vec<Vec<Match>> {
    let (udp, gre) = (17, 47);
    match address {
        IpAddr::V4(address) => {
            let vxlan =
                [&ipv4(address, udp)[..], &[FIRST_FRAGMENT, vxlan_port(Base::BehindIpv4, 0)]].concat();
            vec![vxlan, ipv4(address, gre).to_vec()]
        }
        IpAddr::V6(address) => {
            let to = ipv6_address(38, address);
            let vxlan = [&ipv6(udp)[..], &to, &[vxlan_port(Base::Frame, 54)]].concat();
            vec![vxlan, [&ipv6(gre)[..], &to].concat()]
        }
    }
}

/// Rules for frames of the overlay from known sources to an address: VXLAN with a VNI, and NVGRE.
pub(crate) fn source_rules(address: IpAddr) -> [SourceRule; 2] {
    let (base, start, at, len) =
        if address.is_ipv4() { (Base::BehindIpv4, 0, 26, 4) } else { (Base::Frame, 54, 22, 16) };
    let vni = Match {
        base,
        at: start + 8,
        width: Width::Byte,
        mask: vxlan::FLAG_I.into(),
        value: vxlan::FLAG_I.into(),
    };
    let nvgre =
        Match { base, at: start, width: Width::Word, mask: nvgre::FIRST_WORD_MASK, value: nvgre::FIRST_WORD };
    let rule = |matches: Vec<Match>, more: &[Match], vsid_at| SourceRule {
        matches: [&matches[..], more].concat(),
        vsid: (base, start + vsid_at),
        address: at,
        address_len: len,
    };
    let [vxlan, gre]: [Vec<Match>; 2] = {
        let mut rules = overlay_rules(address).into_iter();
        std::array::from_fn(|_| rules.next().unwrap_or_default())
    };
    let fragment: &[Match] = if address.is_ipv4() { &[FIRST_FRAGMENT] } else { &[] };
    [rule(vxlan, &[vni], 12), rule(gre, &[fragment, &[nvgre]].concat(), 4)]
}

fn vxlan_port(base: Base, udp: u32) -> Match {
    Match { base, at: udp + 2, width: Width::Half, mask: 0xffff, value: vxlan::PORT.into() }
}

/// Rules for control traffic, of which a packet socket gets a copy.
pub(crate) fn control_rules(address: IpAddr) -> Vec<Vec<Match>> {
    match address {
        IpAddr::V4(address) => vec![vec![half(ETHERTYPE, 0x0806)], ipv4(address, 1).to_vec()],
        // Neighbour solicitations go to a group of the address, and advertisements to all nodes.
        IpAddr::V6(_) => vec![ipv6(58).to_vec()],
    }
}

/// Matches of an IPv4 packet to an address.
pub(crate) fn ipv4(address: Ipv4Addr, protocol: u32) -> [Match; 3] {
    [half(ETHERTYPE, 0x0800), word(30, address.into()), byte(23, protocol)]
}

/// Matches of an IPv6 packet.
pub(crate) fn ipv6(protocol: u32) -> [Match; 2] {
    [half(ETHERTYPE, 0x86dd), byte(20, protocol)]
}

/// Matches of an IPv6 address at an offset.
pub(crate) fn ipv6_address(at: u32, address: Ipv6Addr) -> Vec<Match> {
    let octets = address.octets();
    let words = octets.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
    (at..).step_by(4).zip(words).map(|(at, value)| word(at, value)).collect()
}
