//! Checks frames that left Open vSwitch against what Culvert would have sent.

use std::ops::Range;

use culvert_packet::parse_outer_common;

use crate::work::{self, Kind};

/// Byte ranges of an inner frame that differ between flows: both checksums, addresses' lower halves, source port.
const VARIES: [Range<usize>; 4] = [24..26, 28..30, 32..36, 50..52];

/// Checks that `frame` is an inner frame of `bytes` bytes, with the right outer headers or, after decapsulation, with none.
///
/// # Errors
/// The difference.
pub fn check(kind: Kind, bytes: usize, frame: &[u8]) -> Result<(), String> {
    check_inner(work::frame(Kind { decap: false, ..kind }, 0, bytes), inner(kind, frame)?)
}

/// The inner frame, after a check of the outer headers.
///
/// # Errors
/// The outer headers are missing or wrong.
pub fn inner(kind: Kind, frame: &[u8]) -> Result<&[u8], String> {
    if kind.decap {
        return Ok(frame);
    }
    let outer = parse_outer_common(frame).ok_or("Open vSwitch sent a frame without outer headers")?;
    let found = (outer.encap, outer.vsid, outer.src[..4] == work::LOCAL, outer.dst[..4] == work::REMOTE);
    if found != (kind.encap, work::VSID, true, true) {
        return Err(format!("Open vSwitch sent wrong outer headers: {found:?}"));
    }
    Ok(&frame[usize::from(outer.inner)..])
}

/// Checks that `inner` equals `expected`, except for what differs between flows.
///
/// # Errors
/// The difference.
pub fn check_inner(mut expected: Vec<u8>, inner: &[u8]) -> Result<(), String> {
    if inner.len() != expected.len() {
        return Err(format!(
            "Open vSwitch sent an inner frame of {} bytes instead of {}",
            inner.len(),
            expected.len()
        ));
    }
    for range in VARIES {
        expected[range.clone()].copy_from_slice(&inner[range]);
    }
    match inner.iter().zip(&expected).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(format!("Open vSwitch changed byte {at} of the inner frame")),
    }
}

#[cfg(test)]
mod tests {
    use culvert_lockstep::frames::{Outer, encapsulate};

    use super::*;

    #[test]
    fn only_the_right_frame_passes() {
        for kind in Kind::ALL {
            let inner = work::frame(Kind { decap: false, ..kind }, 77, 512);
            let nvgre = kind.encap == culvert_packet::Encap::Nvgre;
            let outer = |vsid| Outer { addresses: (work::LOCAL, work::REMOTE), vsid, nvgre, ecn: 0 };
            let good = if kind.decap { inner.clone() } else { encapsulate(&outer(work::VSID), &inner) };
            assert_eq!(check(kind, 512, &good), Ok(()), "{}", kind.name());
            let mut changed = good.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert!(check(kind, 512, &changed).is_err());
            assert!(check(kind, 64, &good).is_err());
            assert!(check(kind, 512, &[]).is_err());
            let other = if kind.decap { good } else { inner };
            let other = encapsulate(&outer(work::VSID + 1), &other);
            assert!(check(kind, 512, &other).is_err());
        }
    }
}
