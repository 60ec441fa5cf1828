//! Putting a tunnel's outer headers in front of a frame.

use culvert_packet::Encap;
use culvert_packet::encap::MAX_OUTER;

use crate::frame::Frame;
use crate::tables::Tunnel;

/// What of the outer headers depends on the packet.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Length of the inner frame.
    pub inner_len: usize,
    /// ECN bits of the inner packet, copied to the outer header (RFC 6040 section 4.1, normal mode).
    pub ecn: u8,
    /// UDP source port; its low byte is the NVGRE FlowID.
    pub entropy: u16,
    /// VSID.
    pub vsid: u32,
}

/// Writes the tunnel's headers into the first `header_len` bytes of `out` and returns that length. `None`: the tunnel
/// is not in use, its description is not usable, or `out` is too short.
#[inline(always)]
pub fn write(tunnel: &Tunnel, v: &Variable, out: &mut [u8]) -> Option<usize> {
    let encap = tunnel.encap()?;
    let len = usize::from(tunnel.header_len);
    let ip = usize::from(tunnel.ip_offset);
    // The common shape has its lengths known to the compiler: IPv4 without an outer VLAN tag.
    match (encap, len, ip) {
        (Encap::Vxlan, 50, 14) => copy_and_patch::<50, 14>(tunnel, encap, v, out),
        (Encap::Nvgre, 42, 14) => copy_and_patch::<42, 14>(tunnel, encap, v, out),
        _ => other(tunnel, encap, v, out),
    }
}

/// Puts the headers of a tunnel of the common shape in front of a frame. `false`, and nothing happens: it has another
/// shape, or there is no room.
#[inline(always)]
pub(crate) fn push_common(tunnel: &Tunnel, v: &Variable, frame: &mut Frame<'_>) -> bool {
    // Encapsulation, header length, offset of the IP header; the second byte is the uplink.
    const VXLAN: u32 = u32::from_le_bytes([Encap::Vxlan as u8, 0, 50, 14]);
    const NVGRE: u32 = u32::from_le_bytes([Encap::Nvgre as u8, 0, 42, 14]);
    let shape = u32::from_le_bytes([tunnel.encap, tunnel.uplink, tunnel.header_len, tunnel.ip_offset]);
    match shape & 0xffff_00ff {
        VXLAN => push_patched::<50>(tunnel, Encap::Vxlan, v, frame),
        NVGRE => push_patched::<42>(tunnel, Encap::Nvgre, v, frame),
        _ => false,
    }
}

#[inline(always)]
fn push_patched<const LEN: usize>(
    tunnel: &Tunnel,
    encap: Encap,
    v: &Variable,
    frame: &mut Frame<'_>,
) -> bool {
    let (Some(header), Some(out)) = (tunnel.header.first_chunk::<LEN>(), frame.push_array::<LEN>()) else {
        return false;
    };
    *out = *header;
    patch(out, 14, tunnel.ip_sum, encap, v);
    true
}

#[inline(always)]
fn copy_and_patch<const LEN: usize, const IP: usize>(
    tunnel: &Tunnel,
    encap: Encap,
    v: &Variable,
    out: &mut [u8],
) -> Option<usize> {
    let out: &mut [u8; LEN] = out.first_chunk_mut()?;
    *out = *tunnel.header.first_chunk()?;
    patch(out, IP, tunnel.ip_sum, encap, v);
    Some(LEN)
}

#[cold]
fn other(tunnel: &Tunnel, encap: Encap, v: &Variable, out: &mut [u8]) -> Option<usize> {
    let len = usize::from(tunnel.header_len).min(MAX_OUTER);
    let ip = usize::from(tunnel.ip_offset);
    let tail = match encap {
        Encap::Vxlan => 16,
        Encap::Nvgre => 8,
    };
    let ip_len = match tunnel.header.get(ip)? >> 4 {
        4 => 20,
        6 => 40,
        _ => return None,
    };
    if ip + ip_len + tail != len {
        return None;
    }
    let out = out.get_mut(..len)?;
    out.copy_from_slice(&tunnel.header[..len]);
    if ip_len == 20 {
        patch(out, ip, tunnel.ip_sum, encap, v);
    } else {
        let payload = (len - ip - 40 + v.inner_len) as u16;
        out[ip + 1] |= (v.ecn & 3) << 4;
        out[ip + 4..ip + 6].copy_from_slice(&payload.to_be_bytes());
        patch_transport(&mut out[ip + 40..], encap, v);
    }
    Some(len)
}

/// Fills the fields of an IPv4 header at `ip` and what follows it.
#[inline(always)]
fn patch(out: &mut [u8], ip: usize, ip_sum: u16, encap: Encap, v: &Variable) {
    let total = (out.len() - ip + v.inner_len) as u16;
    let ecn = v.ecn & 3;
    let mut sum = u32::from(ip_sum) + u32::from(total) + u32::from(ecn);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    if ecn != 0 {
        out[ip + 1] |= ecn;
    }
    out[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
    out[ip + 10..ip + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    patch_transport(&mut out[ip + 20..], encap, v);
}

#[inline(always)]
fn patch_transport(out: &mut [u8], encap: Encap, v: &Variable) {
    match encap {
        Encap::Vxlan => {
            let udp_len = (16 + v.inner_len) as u16;
            out[0..2].copy_from_slice(&v.entropy.to_be_bytes());
            out[4..6].copy_from_slice(&udp_len.to_be_bytes());
            out[12..16].copy_from_slice(&(v.vsid << 8).to_be_bytes());
        }
        Encap::Nvgre => {
            let key = v.vsid << 8 | u32::from(v.entropy as u8);
            out[4..8].copy_from_slice(&key.to_be_bytes());
        }
    }
}
