//! Selects a guest's receive ring by flow hash: all frames of a flow use the same ring, so that they keep their order.

use culvert_packet::{Family, Fragment, parse};

/// Selects one of `n` rings, the same for all frames of a flow. Its fragments may use another one.
pub(super) fn select_ring(frame: &[u8], n: usize) -> usize {
    if n < 2 {
        return 0;
    }
    let Ok(headers) = parse(frame) else { return 0 };
    let l3 = usize::from(headers.l3);
    let addresses = match headers.family {
        Family::V4 => frame.get(l3 + 12..l3 + 20),
        Family::V6 => frame.get(l3 + 8..l3 + 40),
        _ => None,
    };
    let Some(addresses) = addresses else { return 0 };
    let ports = u64::from(headers.l4_src) << 16 | u64::from(headers.l4_dst);
    let ports = if headers.fragment == Fragment::None { ports } else { 0 };
    // Needs no secret: an attacker can only make the guest use one of its own rings more than others.
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = addresses.as_chunks::<4>().0.iter().map(|word| u64::from(u32::from_ne_bytes(*word)));
    let hash = mix(words.fold(u64::from(headers.protocol), mix), ports);
    (((hash >> 32) * n as u64) >> 32) as usize
}
