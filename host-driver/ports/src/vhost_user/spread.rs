//! Which of a guest's receive rings a frame goes to: all frames of a flow to the same one, so that they keep their order.

use culvert_packet::{Family, Fragment, parse};

/// A number below `n`, the same for all frames of a flow, whose fragments may differ from the rest.
pub(super) fn choose(frame: &[u8], n: usize) -> usize {
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
    // A guest can only be made to use one of its own rings more than others: no secret is needed.
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = addresses.as_chunks::<4>().0.iter().map(|word| u64::from(u32::from_ne_bytes(*word)));
    let hash = mix(words.fold(u64::from(headers.protocol), mix), ports);
    (((hash >> 32) * n as u64) >> 32) as usize
}
