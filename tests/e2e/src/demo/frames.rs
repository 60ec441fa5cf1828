//! Frames that the demo sends unchanged, and the addresses in them.

use std::net::{IpAddr, Ipv4Addr};

use culvert_packet::craft::{Ends, tcp};
use culvert_packet::{MacAddr, tcp as wire};

/// Address of both tenants' SQL servers.
pub(crate) const SQL_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 11));
/// Address of both tenants' web servers.
pub(crate) const WEB_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 12));

/// A TCP SYN from 10.1.1.11 to a port of 10.1.1.12, with valid checksums.
pub(crate) fn syn(src: [u8; 6], dst: [u8; 6], port: u16) -> Vec<u8> {
    let ends = Ends { src_mac: MacAddr(src), dst_mac: MacAddr(dst), src: SQL_ADDRESS, dst: WEB_ADDRESS };
    let mut frame = vec![0; 128];
    let header =
        wire::Header { src_port: 40_000, dst_port: port, flags: wire::Flags::SYN, ..wire::Header::default() };
    let len = tcp(&mut frame, &ends, &header, &[]).unwrap_or(0);
    frame.truncate(len);
    frame
}
