//! Addresses as the tests write them: `10.1.1.11/24`.

use std::net::IpAddr;

use culvert_packet::Prefix;

/// An address and the length of its prefix, as text.
fn split(text: &str) -> Result<(IpAddr, u8), String> {
    let parsed = text.split_once('/').and_then(|(addr, len)| Some((addr.parse().ok()?, len.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text} is not an address with a prefix length"))
}

/// The subnet of an address with its prefix length.
///
/// # Errors
/// The text is something else.
pub fn prefix(text: &str) -> Result<Prefix, String> {
    split(text).map(|(addr, len)| Prefix::of(addr, len))
}

/// The address without its prefix length.
///
/// # Errors
/// The text is something else.
pub fn host(text: &str) -> Result<IpAddr, String> {
    split(text).map(|(addr, _)| addr)
}
