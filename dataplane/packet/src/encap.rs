//! Outer headers of VXLAN and NVGRE: a template for each tunnel, and the fields that each packet fills in.

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

    /// Builds the headers, except lengths, checksum, entropy and VSID.
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
                // RFC 7348 section 4.3: a VTEP must not fragment what it encapsulates.
                // RFC 7637 section 4.4: the same for NVGRE.
                // RFC 6864 section 4.1: a packet that is not fragmented may have any identification.
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
                // Each packet fills in its length and checksum.
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
                // RFC 7348 section 5: destination port 4789, checksum 0.
                // RFC 6935 section 5: a tunnel may send checksum 0 over IPv6, too.
                bytes[at + 2..at + 4].copy_from_slice(&vxlan::PORT.to_be_bytes());
                udp::HEADER_LEN + vxlan::Header { vni: nowhere }.emit(&mut bytes[at + udp::HEADER_LEN..])?
            }
            // RFC 7637 section 3.2: only the K flag, protocol 0x6558, VSID and FlowID in the key.
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

/// Outer headers of a tunnel. Lengths, checksum, entropy and VSID are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Template {
    /// The headers, first byte of Ethernet first.
    pub bytes: [u8; MAX_OUTER],
    /// How many bytes are in use.
    pub len: u8,
    /// Offset of the IP header.
    pub ip_offset: u8,
    /// Ones' complement sum (not inverted) of the IPv4 header as it stands; 0 for IPv6.
    pub ip_sum: u16,
    /// VXLAN or NVGRE.
    pub encap: Encap,
}

/// The fields of outer headers that each packet fills in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Length of the inner frame.
    pub inner_len: usize,
    /// ECN bits of the outer IP header, from [`encapsulate_ecn`](crate::edit::encapsulate_ecn).
    pub ecn: u8,
    /// UDP source port; its low byte is the NVGRE FlowID. From [`source_port`].
    pub entropy: u16,
    /// VSID.
    pub vsid: u32,
}

/// UDP source port from a hash of the inner flow.
#[inline(always)]
pub const fn source_port(hash: u32) -> u16 {
    // RFC 7348 section 5: a hash of inner fields, in the range 49152 to 65535.
    0xc000 | hash as u16
}

impl Template {
    /// Writes the headers of a packet to the front of `out`; returns their length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room. `TooLong`: the packet would be longer than IP can say.
    #[inline]
    pub fn write(&self, fill: &Fill, out: &mut [u8]) -> Result<usize, Reason> {
        let (len, ip) = (usize::from(self.len), usize::from(self.ip_offset));
        if out.len() < len || ip > len {
            return Err(Reason::NoBuffer);
        }
        if len - ip + fill.inner_len > usize::from(u16::MAX) {
            return Err(Reason::TooLong);
        }
        self.borrow().write(fill, out).ok_or(Reason::NoBuffer)
    }

    fn borrow(&self) -> TemplateRef<'_> {
        let Template { ref bytes, len, ip_offset, ip_sum, encap } = *self;
        TemplateRef { bytes, len, ip_offset, ip_sum, encap }
    }
}

/// A [`Template`] whose bytes lie elsewhere, such as in a tunnel of the flow tables.
#[derive(Clone, Copy, Debug)]
pub struct TemplateRef<'a> {
    /// The headers, first byte of Ethernet first.
    pub bytes: &'a [u8; MAX_OUTER],
    /// How many bytes are in use.
    pub len: u8,
    /// Offset of the IP header.
    pub ip_offset: u8,
    /// Ones' complement sum of the IPv4 header as it stands.
    pub ip_sum: u16,
    /// VXLAN or NVGRE.
    pub encap: Encap,
}

impl TemplateRef<'_> {
    /// Writes the headers of a packet to the front of `out`; returns their length. Lengths above what IP can say wrap:
    /// a frame that is segmented later gets its lengths then. `None`: the template is malformed, or `out` is too short.
    #[inline(always)]
    pub fn write(&self, fill: &Fill, out: &mut [u8]) -> Option<usize> {
        // The common shape has lengths that the compiler knows: IPv4 without an outer VLAN tag.
        match (self.encap, self.len, self.ip_offset) {
            (Encap::Vxlan, 50, 14) => self.write_common::<50>(fill, out),
            (Encap::Nvgre, 42, 14) => self.write_common::<42>(fill, out),
            _ => self.write_any(fill, out),
        }
    }

    #[inline(always)]
    fn write_common<const LEN: usize>(&self, fill: &Fill, out: &mut [u8]) -> Option<usize> {
        let out: &mut [u8; LEN] = out.first_chunk_mut()?;
        *out = *self.bytes.first_chunk()?;
        fill_ipv4(out, ethernet::HEADER_LEN, self.ip_sum, self.encap, fill);
        Some(LEN)
    }

    #[cold]
    fn write_any(&self, fill: &Fill, out: &mut [u8]) -> Option<usize> {
        let (len, ip) = (usize::from(self.len), usize::from(self.ip_offset));
        let ip_len = match self.bytes.get(ip)? >> 4 {
            4 => ipv4::HEADER_LEN,
            6 => ipv6::HEADER_LEN,
            _ => return None,
        };
        if ip + ip_len + tail_len(self.encap) != len {
            return None;
        }
        let out = out.get_mut(..len)?;
        out.copy_from_slice(self.bytes.get(..len)?);
        if ip_len == ipv4::HEADER_LEN {
            fill_ipv4(out, ip, self.ip_sum, self.encap, fill);
        } else {
            fill_ipv6(out, ip, self.encap, fill);
        }
        Some(len)
    }
}

/// Fills in outer headers over IPv4: `out` is a copy of the template, whose IP header is at `ip` and has the sum `ip_sum`.
#[inline(always)]
pub fn fill_ipv4(out: &mut [u8], ip: usize, ip_sum: u16, encap: Encap, fill: &Fill) {
    let total = (out.len() - ip + fill.inner_len) as u16;
    // RFC 6040 section 4.1: normal mode, the outer ECN field is a copy of the inner one.
    let ecn = fill.ecn & 3;
    // RFC 791 section 3.1: the checksum covers the header only, so that the template's sum needs two words added.
    let mut sum = u32::from(ip_sum) + u32::from(total) + u32::from(ecn);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    if ecn != 0 {
        out[ip + 1] |= ecn;
    }
    out[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
    out[ip + 10..ip + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    fill_transport(&mut out[ip + ipv4::HEADER_LEN..], encap, fill);
}

fn fill_ipv6(out: &mut [u8], ip: usize, encap: Encap, fill: &Fill) {
    // RFC 8200 section 3: the payload length does not count the fixed header; ECN is in the second byte.
    let payload = (out.len() - ip - ipv6::HEADER_LEN + fill.inner_len) as u16;
    out[ip + 1] |= (fill.ecn & 3) << 4;
    out[ip + 4..ip + 6].copy_from_slice(&payload.to_be_bytes());
    fill_transport(&mut out[ip + ipv6::HEADER_LEN..], encap, fill);
}

#[inline(always)]
fn fill_transport(out: &mut [u8], encap: Encap, fill: &Fill) {
    match encap {
        Encap::Vxlan => {
            // RFC 7348 section 5: entropy in the UDP source port, the VNI in the upper 24 bits of the last word.
            let udp_len = (udp::HEADER_LEN + vxlan::HEADER_LEN + fill.inner_len) as u16;
            out[0..2].copy_from_slice(&fill.entropy.to_be_bytes());
            out[4..6].copy_from_slice(&udp_len.to_be_bytes());
            out[12..16].copy_from_slice(&(fill.vsid << 8).to_be_bytes());
        }
        Encap::Nvgre => {
            // RFC 7637 section 3.2: VSID in the upper 24 bits of the key, FlowID in the lower eight.
            let key = fill.vsid << 8 | u32::from(fill.entropy as u8);
            out[4..8].copy_from_slice(&key.to_be_bytes());
        }
    }
}
