//! Encapsulation: puts a tunnel's outer headers in front of a frame.

use culvert_packet::Encap;
use culvert_packet::encap::{Fill, TemplateRef, fill_ipv4};

use crate::frame::Frame;
use crate::tables::Tunnel;

/// Writes the tunnel's headers to the front of `out`; returns their length. `None`: the tunnel is not in use, its
/// headers are malformed, or `out` is too short.
#[inline(always)]
pub fn write(tunnel: &Tunnel, fill: &Fill, out: &mut [u8]) -> Option<usize> {
    let template = TemplateRef {
        bytes: &tunnel.header,
        len: tunnel.header_len,
        ip_offset: tunnel.ip_offset,
        ip_sum: tunnel.ip_sum,
        encap: tunnel.encap()?,
    };
    template.write(fill, out)
}

/// Puts a tunnel's headers in front of a frame, and counts it in the tunnel. `false`: the tunnel is not usable, or the
/// buffer has no room.
#[inline(always)]
pub(crate) fn push_outer(tunnel: &mut Tunnel, fill: &Fill, frame: &mut Frame<'_>) -> bool {
    let Some(out) = frame.push(usize::from(tunnel.header_len)) else { return false };
    if write(tunnel, fill, out).is_none() {
        return false;
    }
    tunnel.count(fill.inner_len);
    true
}

/// The same for tunnels over IPv4 without an outer VLAN tag, not counted. `false`, and nothing happens: the tunnel is of
/// another shape, or the buffer has no room.
#[inline(always)]
pub(crate) fn push_common(tunnel: &Tunnel, fill: &Fill, frame: &mut Frame<'_>) -> bool {
    // Encapsulation, header length, offset of the IP header; the second byte is the uplink.
    const VXLAN: u32 = u32::from_le_bytes([Encap::Vxlan as u8, 0, 50, 14]);
    const NVGRE: u32 = u32::from_le_bytes([Encap::Nvgre as u8, 0, 42, 14]);
    let shape = u32::from_le_bytes([tunnel.encap, tunnel.uplink, tunnel.header_len, tunnel.ip_offset]);
    match shape & 0xffff_00ff {
        VXLAN => push_filled::<50>(tunnel, Encap::Vxlan, fill, frame),
        NVGRE => push_filled::<42>(tunnel, Encap::Nvgre, fill, frame),
        _ => false,
    }
}

#[inline(always)]
fn push_filled<const LEN: usize>(tunnel: &Tunnel, encap: Encap, fill: &Fill, frame: &mut Frame<'_>) -> bool {
    let (Some(header), Some(out)) = (tunnel.header.first_chunk::<LEN>(), frame.push_array::<LEN>()) else {
        return false;
    };
    *out = *header;
    fill_ipv4(out, 14, tunnel.ip_sum, encap, fill);
    true
}
