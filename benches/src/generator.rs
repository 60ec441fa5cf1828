//! Frames of many flows, made from one template without touching memory of their own.

use crate::work::{self, Kind};

/// Bytes that are written for each frame: all headers. The payload stays what it was.
const HEAD: usize = 128;

/// Writes frames of flows.
pub struct Generator {
    head: Vec<u8>,
    len: usize,
    /// Where the inner Ethernet header is.
    inner: usize,
    /// Sum of the inner IPv4 header without checksum and the parts that change.
    sum: u32,
}

impl Generator {
    /// For frames whose inner part is `len` bytes long.
    pub fn new(kind: Kind, len: usize) -> Self {
        let whole = work::frame(kind, 0, len);
        let inner = whole.len() - len;
        let ip = &whole[inner + 14..inner + 34];
        let sum = (0..20).step_by(2).filter(|at| *at < 10).map(|at| word(ip, at)).sum::<u32>();
        Generator { head: whole[..whole.len().min(HEAD)].to_vec(), len: whole.len(), inner, sum }
    }

    /// Length of a frame.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether frames have no bytes: never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes a frame of flow `n`.
    #[inline(always)]
    pub fn write(&self, n: u32, out: &mut [u8]) {
        let Some(head) = out.get_mut(..self.head.len()) else { return };
        head.copy_from_slice(&self.head);
        let host = work::host(n);
        let (src, dst) = (host as u16, (host >> 16) as u16);
        let Some(inner) = head.get_mut(self.inner..self.inner + 36) else { return };
        inner[28..30].copy_from_slice(&src.to_be_bytes());
        inner[32..34].copy_from_slice(&dst.to_be_bytes());
        inner[34..36].copy_from_slice(&work::port(n).to_be_bytes());
        // RFC 1071: 10.1 and 10.2 are in the addresses' upper halves.
        let sum = self.sum + 0x0a01 + 0x0a02 + u32::from(src) + u32::from(dst);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        inner[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_flows() {
        for kind in Kind::ALL {
            let generator = Generator::new(kind, 512);
            for n in [0, 1, 999, 77_777, 999_999] {
                let mut frame = work::frame(kind, 0, 512);
                assert_eq!(frame.len(), generator.len());
                generator.write(n, &mut frame);
                let expected = work::frame(kind, n, 512);
                // All but the TCP checksum.
                let checksum = generator.inner + 50;
                frame[checksum..checksum + 2].copy_from_slice(&expected[checksum..checksum + 2]);
                assert!(frame == expected, "{} flow {n}", kind.name());
            }
        }
    }
}
