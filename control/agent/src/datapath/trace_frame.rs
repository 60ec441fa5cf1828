//! The frame of a trace request: given in hexadecimal digits, or built from addresses and ports.

use std::net::IpAddr;

use culvert_api::view::{TraceRequest, TraceTuple};
use culvert_flow::Port;
use culvert_packet::craft::{self, Ends};
use culvert_packet::{MacAddr, VportId, tcp};
use culvert_policy::snapshot::{Snapshot, Vport};

use super::interface::DatapathError;

/// Source port where the request names none.
const DEFAULT_SOURCE_PORT: u16 = 49152;
/// Longest frame that can be traced.
const MAX_FRAME: usize = 9216;
/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// Room for the headers of a packet that is made.
const MAX_HEADERS: usize = 256;

fn invalid(detail: impl Into<String>) -> DatapathError {
    DatapathError::Invalid { detail: detail.into() }
}

/// The input port and the frame of a request.
pub(super) fn resolve(request: &TraceRequest, snapshot: &Snapshot) -> Result<(Port, Vec<u8>), DatapathError> {
    let port = port(&request.port, snapshot)?;
    if !request.frame.is_empty() {
        return Ok((port, from_hex(&request.frame)?));
    }
    let tuple = request
        .tuple
        .as_ref()
        .ok_or_else(|| invalid("the request has neither a frame nor a destination: give one of them"))?;
    let Port::Vport(id) = port else {
        return Err(invalid("packets from an uplink are encapsulated: give the whole frame"));
    };
    let vport = snapshot.vports.get(&id).ok_or_else(|| invalid(format!("there is no vport {id}")))?;
    Ok((port, build(tuple, vport, snapshot)?))
}

fn port(name: &str, snapshot: &Snapshot) -> Result<Port, DatapathError> {
    match (name, name.parse::<u16>()) {
        ("uplink0", _) => Ok(Port::Uplink(0)),
        ("uplink1", _) => Ok(Port::Uplink(1)),
        (_, Ok(n)) if snapshot.vports.contains_key(&VportId(n)) => Ok(Port::Vport(VportId(n))),
        _ => Err(invalid(format!("there is no port \"{name}\""))),
    }
}

fn build(tuple: &TraceTuple, vport: &Vport, snapshot: &Snapshot) -> Result<Vec<u8>, DatapathError> {
    let address =
        |text: &str| text.parse::<IpAddr>().map_err(|_| invalid(format!("\"{text}\" is not an IP address")));
    let mac = |text: &str| text.parse::<MacAddr>().map_err(|e| invalid(format!("\"{text}\" is {e}")));
    let dst = address(&tuple.destination)?;
    let src = match tuple.source.as_str() {
        "" => vport.addresses.iter().copied().find(|a| a.is_ipv4() == dst.is_ipv4()),
        text => Some(address(text)?),
    };
    let src = src.filter(|s| s.is_ipv4() == dst.is_ipv4());
    let src = src.ok_or_else(|| invalid(format!("the port has no address of the family of {dst}")))?;
    let src_mac = if tuple.source_mac.is_empty() { vport.mac } else { mac(&tuple.source_mac)? };
    let dst_mac = if tuple.destination_mac.is_empty() {
        next_hop(dst, vport, snapshot)
    } else {
        mac(&tuple.destination_mac)?
    };
    let ends = Ends { src_mac, dst_mac, src, dst };
    let shortest = packet(tuple, &ends, &[])?;
    let Some(size) = tuple.size else { return Ok(shortest) };
    let least = shortest.len() - ETHERNET;
    if (size as usize) < least || size as usize > MAX_FRAME - ETHERNET {
        let most = MAX_FRAME - ETHERNET;
        return Err(invalid(format!(
            "an IP packet of {size} bytes: give {least} to {most} for this protocol"
        )));
    }
    packet(tuple, &ends, &vec![0; size as usize - least])
}

/// A packet of the request's protocol and ports with this payload.
fn packet(tuple: &TraceTuple, ends: &Ends, payload: &[u8]) -> Result<Vec<u8>, DatapathError> {
    let (from, to) = (tuple.source_port.unwrap_or(DEFAULT_SOURCE_PORT), tuple.destination_port);
    let to = || to.ok_or_else(|| invalid("TCP and UDP need a destination port"));
    let mut out = vec![0; MAX_HEADERS + payload.len()];
    let length = match tuple.protocol.to_ascii_lowercase().as_str() {
        "tcp" => {
            let header = tcp::Header {
                src_port: from,
                dst_port: to()?,
                sequence: 0,
                acknowledgment: 0,
                flags: tcp::Flags::SYN,
                window: u16::MAX,
                urgent: 0,
            };
            craft::tcp(&mut out, ends, &header, payload)
        }
        "udp" => craft::udp(&mut out, ends, from, to()?, payload),
        "icmp" => craft::ping(&mut out, ends, 1, 1, payload),
        other => return Err(invalid(format!("protocol \"{other}\": use tcp, udp or icmp"))),
    };
    let length =
        length.map_err(|reason| invalid(format!("cannot build the packet: {}", reason.describe())))?;
    out.truncate(length);
    Ok(out)
}

/// The MAC address that a guest would send to: the destination's within its subnet, else the router's.
fn next_hop(dst: IpAddr, vport: &Vport, snapshot: &Snapshot) -> MacAddr {
    let local = snapshot.subnets.get(&vport.vsid).is_some_and(|s| s.prefixes.iter().any(|p| p.contains(dst)));
    let mapping = snapshot.mappings.by_ca(vport.rdid, dst).filter(|_| local);
    mapping.map_or(snapshot.router_mac, |m| m.mac)
}

fn from_hex(text: &str) -> Result<Vec<u8>, DatapathError> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace() && *b != b':')
        .map(|b| char::from(b).to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()
        .ok_or_else(|| invalid("the frame has characters that are not hexadecimal digits"))?;
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 2 * MAX_FRAME {
        return Err(invalid(format!(
            "the frame has {} hexadecimal digits: give two for each of 1 to {MAX_FRAME} bytes",
            digits.len()
        )));
    }
    Ok(digits.chunks_exact(2).map(|d| d[0] << 4 | d[1]).collect())
}

/// Two hexadecimal digits a byte.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits() {
        assert_eq!(from_hex("00 1d:D8").unwrap(), [0x00, 0x1d, 0xd8]);
        assert_eq!(to_hex(&[0x00, 0x1d, 0xd8]), "001dd8");
        for bad in ["", "0", "0g", "zz"] {
            assert!(from_hex(bad).is_err(), "{bad}");
        }
    }
}
