//! Outer headers: a template for each tunnel, and what is filled in for each packet.

use core::net::IpAddr;

use crate::checksum;
use crate::ethernet::{self, EtherType};
use crate::id::{Encap, MacAddr, VlanId, Vni};
use crate::ip::Protocol;
use crate::reason::Reason;
use crate::{ipv4, ipv6, nvgre, udp, vlan, vxlan};

/// Room of a template. Ethernet, VLAN, IPv6, UDP and VXLAN are 74 bytes.
pub const MAX_OUTER: usize = 96;

/// TTL and hop limit of outer headers.
pub const OUTER_TTL: u8 = 64;

/// What the outer headers of a tunnel are made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OuterSpec {
    /// VXLAN or NVGRE.
    pub encap: Encap,
    /// MAC of the uplink.
    pub src_mac: MacAddr,
    /// MAC of the next hop.
    pub dst_mac: MacAddr,
    /// VLAN of the PA network.
    pub vlan: Option<VlanId>,
    /// Provider address of this host.
    pub src: IpAddr,
    /// Provider address of the other host, of the same family.
    pub dst: IpAddr,
}

impl OuterSpec {
    /// Bytes of outer headers: 50 for VXLAN over IPv4, 42 for NVGRE.
    pub const fn header_len(&self) -> usize {
        let tag = if self.vlan.is_some() { vlan::TAG_LEN } else { 0 };
        let ip = if self.src.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        ethernet::HEADER_LEN + tag + ip + tail_len(self.encap)
    }

    /// Builds the headers but for lengths, checksum, entropy and VSID.
    ///
    /// # Errors
    /// `Unsupported`: the addresses are of different families.
    pub fn template(&self) -> Result<Template, Reason> {
        let mut bytes = [0; MAX_OUTER];
        let ip_type = if self.src.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let first = if self.vlan.is_some() { EtherType::VLAN } else { ip_type };
        let mut at =
            ethernet::Header { dst: self.dst_mac, src: self.src_mac, ethertype: first }.emit(&mut bytes)?;
        if let Some(id) = self.vlan {
            at += vlan::Header { tci: vlan::Tci(id.get()), ethertype: ip_type }.emit(&mut bytes[at..])?;
        }
        let ip_offset = at;
        let protocol = match self.encap {
            Encap::Vxlan => Protocol::UDP,
            Encap::Nvgre => Protocol::GRE,
        };
        let mut ip_sum = 0;
        at += match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = ipv4::Header {
                    tos: 0,
                    id: 0,
                    dont_fragment: true,
                    more_fragments: false,
                    fragment_offset: 0,
                    ttl: OUTER_TTL,
                    protocol,
                    src,
                    dst,
                    payload_len: 0,
                };
                let len = header.emit(&mut bytes[at..])?;
                // Length and checksum are each packet's own.
                bytes[at + 2..at + 4].fill(0);
                bytes[at + 10..at + 12].fill(0);
                ip_sum = checksum::sum(&bytes[at..at + len]);
                len
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = ipv6::Header {
                    traffic_class: 0,
                    flow_label: 0,
                    next_header: protocol,
                    hop_limit: OUTER_TTL,
                    src,
                    dst,
                    payload_len: 0,
                };
                header.emit(&mut bytes[at..])?
            }
            _ => return Err(Reason::Unsupported),
        };
        let nowhere = Vni::new(0).map_err(|_| Reason::Unsupported)?;
        at += match self.encap {
            Encap::Vxlan => {
                // Checksum 0: RFC 7348 section 5, and RFC 6935 for IPv6.
                bytes[at + 2..at + 4].copy_from_slice(&vxlan::PORT.to_be_bytes());
                udp::HEADER_LEN + vxlan::Header { vni: nowhere }.emit(&mut bytes[at + udp::HEADER_LEN..])?
            }
            Encap::Nvgre => nvgre::Header { vsid: nowhere, flow_id: 0 }.emit(&mut bytes[at..])?,
        };
        Ok(Template { bytes, len: at as u8, ip_offset: ip_offset as u8, ip_sum, encap: self.encap })
    }
}

/// Bytes behind the IP header.
const fn tail_len(encap: Encap) -> usize {
    match encap {
        Encap::Vxlan => udp::HEADER_LEN + vxlan::HEADER_LEN,
        Encap::Nvgre => nvgre::HEADER_LEN,
    }
}

/// Outer headers but for lengths, checksum, entropy and VSID, which are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Template {
    /// The headers, first byte of Ethernet first.
    pub bytes: [u8; MAX_OUTER],
    /// How many bytes are in use.
    pub len: u8,
    /// Offset of the IP header.
    pub ip_offset: u8,
    /// Sum (not its complement) of the IPv4 header as it stands; 0 for IPv6.
    pub ip_sum: u16,
    /// VXLAN or NVGRE.
    pub encap: Encap,
}

/// What of the outer headers depends on the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Length of the inner frame.
    pub inner_len: u16,
    /// ECN bits: those of the inner packet, by [`encapsulate_ecn`](crate::edit::encapsulate_ecn).
    pub ecn: u8,
    /// UDP source port; its low byte is the NVGRE FlowID. From [`source_port`].
    pub entropy: u16,
    /// VSID.
    pub vsid: u32,
}

/// UDP source port from a hash of the inner flow: 49152 to 65535 (RFC 7348 section 5).
#[inline(always)]
pub const fn source_port(hash: u32) -> u16 {
    0xc000 | hash as u16
}

impl Template {
    /// Writes the headers of a packet to the front of `out`; returns their length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room. `TooLong`: the packet would be longer than IP can say.
    #[inline]
    pub fn write(&self, fill: &Fill, out: &mut [u8]) -> Result<usize, Reason> {
        let len = usize::from(self.len);
        let ip = usize::from(self.ip_offset);
        let headers = self.bytes.get(..len).ok_or(Reason::NoBuffer)?;
        let out = out.get_mut(..len).ok_or(Reason::NoBuffer)?;
        out.copy_from_slice(headers);
        let ip_packet = out.get_mut(ip..).ok_or(Reason::NoBuffer)?;
        let total =
            u16::try_from(ip_packet.len() + usize::from(fill.inner_len)).map_err(|_| Reason::TooLong)?;
        let ecn = fill.ecn & 3;
        let tail = tail_len(self.encap);
        let ip_len = ip_packet.len().checked_sub(tail).ok_or(Reason::NoBuffer)?;
        let (header, rest) = ip_packet.split_at_mut(ip_len);
        match header.len() {
            ipv4::HEADER_LEN => {
                header[1] |= ecn;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                let sum = u64::from(self.ip_sum) + u64::from(total) + u64::from(ecn);
                header[10..12].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
            }
            ipv6::HEADER_LEN => {
                header[1] |= ecn << 4;
                header[4..6].copy_from_slice(&(total - ipv6::HEADER_LEN as u16).to_be_bytes());
            }
            _ => return Err(Reason::NoBuffer),
        }
        match self.encap {
            Encap::Vxlan => {
                rest[..2].copy_from_slice(&fill.entropy.to_be_bytes());
                rest[4..6].copy_from_slice(&(tail as u16 + fill.inner_len).to_be_bytes());
                rest[12..16].copy_from_slice(&(fill.vsid << 8).to_be_bytes());
            }
            Encap::Nvgre => {
                let key = fill.vsid << 8 | u32::from(fill.entropy as u8);
                rest[4..8].copy_from_slice(&key.to_be_bytes());
            }
        }
        Ok(len)
    }
}
