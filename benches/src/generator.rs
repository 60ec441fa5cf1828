//! Frames of many flows, written from one template.

use crate::work::{self, Kind};

/// Bytes written for each frame: all headers. The payload in the buffer stays.
const HEAD: usize = 128;

/// Writes frames of flows.
pub struct Generator {
    kind: Kind,
    head: Vec<u8>,
    len: usize,
    /// Where the inner Ethernet header is.
    inner: usize,
    /// Sums of the inner IPv4 header, and of the TCP segment with its pseudo-header, without checksum and the parts
    /// that change.
    sums: (u32, u32),
    /// The addresses' lower halves, if they are the same in all flows.
    pair: Option<(u16, u16)>,
    whole: Vec<u8>,
}

impl Generator {
    /// For frames whose inner part is `len` bytes long.
    pub fn new(kind: Kind, len: usize) -> Self {
        Self::of(kind, work::frame(kind, 0, len), len, false)
    }

    /// For frames between two hosts, whose flows differ by port alone.
    pub fn pair(kind: Kind, len: usize) -> Self {
        Self::of(kind, work::pair_frame(kind, 0, len), len, true)
    }

    fn of(kind: Kind, whole: Vec<u8>, len: usize, pair: bool) -> Self {
        let inner = whole.len() - len;
        let ip = &whole[inner + 14..inner + 34];
        let header = (0..10).step_by(2).map(|at| word(ip, at)).sum::<u32>();
        let tcp = &whole[inner + 34..];
        let even = tcp.len() & !1;
        let words = (2..even).step_by(2).filter(|at| *at != 16).map(|at| word(tcp, at));
        let odd = tcp.get(even).map_or(0, |last| u32::from(*last) << 8);
        let segment = fold(words.sum::<u32>() + odd + 6 + tcp.len() as u32);
        let head = whole[..whole.len().min(HEAD)].to_vec();
        // The addresses' upper halves are the same in all flows.
        let addresses = word(ip, 12) + word(ip, 16);
        let sums = (header + addresses, segment + addresses);
        let pair = pair.then(|| (word(ip, 14) as u16, word(ip, 18) as u16));
        Generator { kind, head, len: whole.len(), inner, sums, pair, whole }
    }

    /// Direction and encapsulation of its frames.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Length of a frame.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether frames have no bytes: never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the bytes that all frames have in common, with the payload.
    pub fn write_payload(&self, out: &mut [u8]) {
        if let Some(out) = out.get_mut(..self.len) {
            out.copy_from_slice(&self.whole);
        }
    }

    /// Writes the headers of a frame of flow `n`, with checksums that include the common payload.
    #[inline(always)]
    pub fn write(&self, n: u32, out: &mut [u8]) {
        let Some(head) = out.get_mut(..self.head.len()) else { return };
        head.copy_from_slice(&self.head);
        let host = work::host(n);
        let (src, dst) = self.pair.unwrap_or((host as u16, (host >> 16) as u16));
        let port = work::port(n);
        let Some(inner) = head.get_mut(self.inner..self.inner + 52) else { return };
        inner[28..30].copy_from_slice(&src.to_be_bytes());
        inner[32..34].copy_from_slice(&dst.to_be_bytes());
        inner[34..36].copy_from_slice(&port.to_be_bytes());
        let addresses = u32::from(src) + u32::from(dst);
        inner[24..26].copy_from_slice(&(!fold(self.sums.0 + addresses) as u16).to_be_bytes());
        let segment = fold(self.sums.1 + addresses + u32::from(port));
        inner[50..52].copy_from_slice(&(!segment as u16).to_be_bytes());
    }
}

/// A random order of flows.
#[derive(Clone, Copy)]
pub struct Order(u64);

impl Default for Order {
    fn default() -> Self {
        Order(1)
    }
}

impl Order {
    /// The next frame's flow, below `flows`.
    #[inline(always)]
    pub fn next(&mut self, flows: u32) -> u32 {
        // PCG's linear congruential generator; only its upper half is random enough.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(flows)) >> 32) as u32
    }
}

/// A sum of 16-bit words with its carries added.
#[inline(always)]
fn fold(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
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
            for (n, len) in [(0, 64), (1, 65), (999, 512), (77_777, 1499), (999_999, 1500)] {
                for (generator, expected) in [
                    (Generator::new(kind, len), work::frame(kind, n, len)),
                    (Generator::pair(kind, len), work::pair_frame(kind, n, len)),
                ] {
                    assert_eq!(expected.len(), generator.len());
                    let mut frame = vec![0; expected.len()];
                    generator.write_payload(&mut frame);
                    generator.write(n, &mut frame);
                    assert!(frame == expected, "{} flow {n}", kind.name());
                }
            }
        }
    }
}
