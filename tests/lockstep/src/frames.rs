//! Frames for traces, built byte by byte from the RFCs, without the product's code.

/// Ones' complement sum, complemented.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&b| u32::from(b));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An Ethernet frame.
pub fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

/// Inserts an 802.1Q tag after the MACs.
pub fn tag(frame: &[u8], tci: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tci.to_be_bytes(), &frame[12..]].concat()
}

/// An IPv4 packet (RFC 791).
pub fn ipv4(
    src: [u8; 4],
    dst: [u8; 4],
    protocol: u8,
    ttl: u8,
    tos: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut header = vec![0x45, tos];
    header.extend(total.to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(fragment.to_be_bytes());
    header.extend([ttl, protocol, 0, 0]);
    header.extend(src);
    header.extend(dst);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [header, payload.to_vec()].concat()
}

/// An IPv6 packet (RFC 8200).
pub fn ipv6(src: [u8; 16], dst: [u8; 16], next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], next, hop_limit][..], &src, &dst, payload].concat()
}

fn with_pseudo(src: &[u8], dst: &[u8], protocol: u8, mut l4: Vec<u8>, at: usize) -> Vec<u8> {
    let len = (l4.len() as u32).to_be_bytes();
    let sum = checksum(&[src, dst, &len, &[0, protocol], &l4]);
    let sum = if sum == 0 { 0xffff } else { sum };
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    l4
}

/// A UDP datagram with its checksum (RFC 768).
pub fn udp(src: &[u8], dst: &[u8], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(ports.0.to_be_bytes());
    l4.extend(ports.1.to_be_bytes());
    l4.extend(((8 + payload.len()) as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(payload);
    with_pseudo(src, dst, 17, l4, 6)
}

/// A TCP segment (RFC 9293).
pub fn tcp(src: &[u8], dst: &[u8], ports: (u16, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(ports.0.to_be_bytes());
    l4.extend(ports.1.to_be_bytes());
    l4.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    l4.extend(payload);
    with_pseudo(src, dst, 6, l4, 16)
}

/// An ICMP echo (RFC 792): type 8 is a request, 0 a reply.
pub fn echo(kind: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![kind, 0, 0, 0];
    l4.extend(id.to_be_bytes());
    l4.extend([0, 1]);
    l4.extend(payload);
    let sum = checksum(&[&l4]);
    l4[2..4].copy_from_slice(&sum.to_be_bytes());
    l4
}

/// An ARP request (RFC 826).
pub fn arp(src_mac: [u8; 6], src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &src_mac, &src, &[0; 6], &dst].concat();
    ethernet([0xff; 6], src_mac, 0x0806, &body)
}

/// Outer headers of a packet from the wire.
#[derive(Clone, Debug)]
pub struct Outer {
    /// Outer source and destination.
    pub addresses: ([u8; 4], [u8; 4]),
    /// VNI or upper part of the GRE key.
    pub vsid: u32,
    /// NVGRE instead of VXLAN.
    pub nvgre: bool,
    /// ECN bits.
    pub ecn: u8,
}

/// Encapsulates a frame as another host would (RFC 7348, RFC 7637).
pub fn encapsulate(outer: &Outer, inner: &[u8]) -> Vec<u8> {
    let (src, dst) = outer.addresses;
    let (protocol, l4) = if outer.nvgre {
        let key = outer.vsid << 8 | 0x5a;
        (47, [&[0x20, 0, 0x65, 0x58][..], &key.to_be_bytes(), inner].concat())
    } else {
        let vxlan = [&[0x08, 0, 0, 0][..], &(outer.vsid << 8).to_be_bytes(), inner].concat();
        let mut l4 = udp(&src, &dst, (50_000, 4789), &vxlan);
        l4[6..8].fill(0);
        (17, l4)
    };
    let ip = ipv4(src, dst, protocol, 64, outer.ecn, 0x4000, &l4);
    ethernet([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 9, 9], 0x0800, &ip)
}
