//! Conversions of policy text to checked values, and values computed from them.

use std::net::IpAddr;

use culvert_packet::{MacAddr, Prefix, Rdid};

/// Parses a host's MAC address: neither a group address nor zero.
pub(crate) fn host_mac(text: &str) -> Option<MacAddr> {
    text.parse().ok().filter(|mac: &MacAddr| *mac != MacAddr::ZERO && !mac.is_multicast())
}

/// Whether all of `inner` lies in `outer`.
pub(crate) fn covers(outer: &Prefix, inner: &Prefix) -> bool {
    inner.len() >= outer.len() && outer.contains(inner.addr())
}

/// Whether there is room for the router and one more host.
pub(crate) fn has_room(prefix: &Prefix) -> bool {
    prefix.len() + 2 <= if prefix.addr().is_ipv4() { 32 } else { 128 }
}

/// The address as a number.
pub(crate) fn to_u128(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

/// The address of `family`'s family with this number.
pub(crate) fn from_u128(family: IpAddr, value: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4((value as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(value.into()),
    }
}

/// A routing domain for a network whose policy names none: always the same for the same name. FNV-1a over 128 bits,
/// marked as a GUID of version 8 (RFC 9562 section 5.8).
pub(crate) fn rdid_of_name(name: &str) -> Rdid {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in name.to_ascii_lowercase().bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    let mut bytes = hash.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Rdid(bytes)
}
