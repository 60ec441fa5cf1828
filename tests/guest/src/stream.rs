//! The bytes that transfers carry: pseudo-random, the same for the same seed, and their SHA-256.

use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// A reproducible stream of bytes (SplitMix64 of a counter), so that a receiver's digest can be checked against what
/// was sent without storing it.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    word: u64,
    /// Bytes of the current word already given out.
    used: usize,
}

impl Stream {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, word: 0, used: 0 }
    }

    fn word(&self, index: u64) -> [u8; 8] {
        let mut z = self.seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// The next bytes.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            let word = self.word(self.word);
            let part = (8 - self.used).min(out.len());
            let (now, later) = out.split_at_mut(part);
            now.copy_from_slice(&word[self.used..self.used + part]);
            self.used += part;
            if self.used == 8 {
                (self.word, self.used) = (self.word + 1, 0);
            }
            out = later;
        }
    }
}

/// A running SHA-256 over a stream.
#[derive(Clone, Default)]
pub struct Digest {
    hash: Sha256,
    bytes: u64,
}

impl Digest {
    /// Adds bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.bytes += data.len() as u64;
    }

    /// How many bytes were added.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all bytes so far, in hexadecimal.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// The digest of the first `bytes` of the stream of this seed.
    #[must_use]
    pub fn of_stream(seed: u64, bytes: u64) -> String {
        let mut digest = Self::default();
        let mut stream = Stream::new(seed);
        let mut block = vec![0; 64 << 10];
        while digest.bytes < bytes {
            let part = (bytes - digest.bytes).min(block.len() as u64) as usize;
            stream.fill(&mut block[..part]);
            digest.update(&block[..part]);
        }
        digest.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_does_not_depend_on_how_it_is_read() {
        let mut whole = [0; 100];
        Stream::new(7).fill(&mut whole);
        let mut pieces = Stream::new(7);
        let mut at = 0;
        for len in [1, 7, 8, 9, 3, 40, 32] {
            let mut piece = vec![0; len];
            pieces.fill(&mut piece);
            assert_eq!(piece, whole[at..at + len]);
            at += len;
        }
        let mut other = [0; 100];
        Stream::new(8).fill(&mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn the_digest_is_sha_256() {
        let mut digest = Digest::default();
        digest.update(b"abc");
        assert_eq!(digest.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::of_stream(1, 100_000).len(), 64);
    }
}
